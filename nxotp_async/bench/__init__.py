"""The load benchmark: a closed loop and an open one, latencies without coordinated omission, reports to compare.

It needs ``pip install 'nxotp_async[bench]'``.
"""

from .benchmark import Benchmark, made_up_messages
from .figures import Comparison, compare
from .plan import Plan
from .report import Arrivals, BenchmarkReport, Machine

__all__ = ["Arrivals", "Benchmark", "BenchmarkReport", "Comparison", "Machine", "Plan", "compare", "made_up_messages"]
