"""The scheduler: owns every live request, keeps the lanes, forms batches.

`machine` decides and is pure; `runtime` acts. One leader per model; other schedulers stand by.
"""
