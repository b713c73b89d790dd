"""Tests of one module each, in the packages of the library."""
