"""A job that several processes work on: its caps, its deadline, its counters, and its end.

A ``Job`` describes it, and controls it in the process that started it. Each process that works on it has a ``Member``,
which reports to the job's board what its runs spend and count, and passes on what they may spend and when to stop.
"""

from .job import Job
from .member import JobRun, Member

__all__ = ["Job", "JobRun", "Member"]
