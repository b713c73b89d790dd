"""The Arrow types that most columns of the tables have."""

import pyarrow as pa

STRING = pa.string()
INT = pa.int32()
REAL = pa.float64()
BOOL = pa.bool_()
