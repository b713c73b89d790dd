"""Files for Prefect: deployments, automations, a job template, and the demo's config.

A package so that an installed Thyro has them too; `thyro deployments --to DIR` writes them.
"""
