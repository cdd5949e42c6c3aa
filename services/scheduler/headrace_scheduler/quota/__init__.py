"""What the quota keeper knows and how it decides. Pure.

A tenant may use 1,000 tokens a minute. Times are seconds, `r` names reservations:

    0.2   reserve r1, 600 tokens      granted: 600 of 1,000 in bucket 0
    5.0   reserve r2, 600 tokens      refused: bucket 0 leaves the window at 61; retry after 56 s
    5.5   reserve r1, 600 tokens      granted: it is the same reservation, charged once
    9.0   settle r1, it used 100      bucket 0 holds 100
    9.1   reserve r2, 600 tokens      granted: 100 in bucket 0, 600 in bucket 9

Buckets are seconds. A bucket counts until 61 later: so any 60 seconds, wherever they begin, lie
within what was counted at their end.
"""
