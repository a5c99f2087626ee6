"""Schedules and policies decide which parameters are frozen at each step of a run; they use no framework.

A schedule is a pure function of the step, a policy of signals such as the loss. Both are values: they are equal if
their fields are, print as the source code that creates them, and can be saved as TOML or JSON.

Example:
    >>> from frostline import schedules
    >>> schedule = schedules.LinearProbe(["head"], steps=500)
    >>> schedule.at(499).frozen, schedule.at(500).frozen
    (('**', '!head'), ())
    >>> schedules.Schedule.from_toml(schedule.to_toml()) == schedule
    True
"""

from frostline.schedules.autofreeze import AutoFreeze as AutoFreeze
from frostline.schedules.badam import BAdam as BAdam
from frostline.schedules.chart import Chart as Chart
from frostline.schedules.egeria import Egeria as Egeria
from frostline.schedules.freezeout import FreezeOut as FreezeOut
from frostline.schedules.hift import HiFT as HiFT
from frostline.schedules.linear_probe import LinearProbe as LinearProbe
from frostline.schedules.lisa import LISA as LISA
from frostline.schedules.phase import Phase as Phase
from frostline.schedules.phases import Phases as Phases
from frostline.schedules.phases import Span as Span
from frostline.schedules.plateau import Plateau as Plateau
from frostline.schedules.policy import Policy as Policy
from frostline.schedules.schedule import Schedule as Schedule
from frostline.schedules.ulmfit import ULMFiT as ULMFiT

__all__ = [
    "AutoFreeze",
    "BAdam",
    "Chart",
    "Egeria",
    "FreezeOut",
    "HiFT",
    "LISA",
    "LinearProbe",
    "Phase",
    "Phases",
    "Plateau",
    "Policy",
    "Schedule",
    "Span",
    "ULMFiT",
]
