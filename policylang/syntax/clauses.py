"""The nodes of conditions, options and settings: what stands behind or around rules."""

from __future__ import annotations

from dataclasses import dataclass

from policylang.syntax.leaves import (
    Date,
    Duration,
    Keyword,
    MacAddress,
    Masked,
    Name,
    Node,
    Number,
    NumberRange,
    Text,
    TimeWindow,
)


@dataclass(frozen=True, slots=True)
class Per(Node):
    """`per source`, `per destination/24`: what is counted apart."""

    side: str
    prefix_len: int | None


@dataclass(frozen=True, slots=True)
class RateNode(Node):
    """`10/second burst 5 per source`; burst and per None where not said."""

    count: int
    unit: str
    burst: int | None
    per: Per | None


@dataclass(frozen=True, slots=True)
class RateValue(Node):
    """`4/minute` as the value of a parameter."""

    count: int
    unit: str


@dataclass(frozen=True, slots=True)
class LogOption(Node):
    """`log ["PREFIX"] [level info] [group 5] [limit RATE | limit none]`."""

    prefix: Text | None
    level: Name | None
    group: Number | None
    limit: RateNode | Keyword | None  # Keyword: none


@dataclass(frozen=True, slots=True)
class NameOption(Node):
    text: Text


@dataclass(frozen=True, slots=True)
class AddOption(Node):
    """`add source to SET [for 1h]`."""

    side: str
    set: Name
    timeout: Duration | None


@dataclass(frozen=True, slots=True)
class AlsoOption(Node):
    """`also established`."""


Option = LogOption | AddOption | NameOption | AlsoOption


@dataclass(frozen=True, slots=True)
class LimitCondition(Node):
    """`limit RATE` or `limit over RATE`."""

    over: str | None
    rate: RateNode


@dataclass(frozen=True, slots=True)
class ConnectionsCondition(Node):
    """`max N connections [per …]` or `over N connections [per …]`."""

    bound: str  # max, over
    count: Number
    per: Per | None


@dataclass(frozen=True, slots=True)
class OwnerCondition(Node):
    """`user alice, 1000-1999` or `group …`."""

    kind: str  # user, group
    owners: tuple[Name | NumberRange | Number, ...]


@dataclass(frozen=True, slots=True)
class CgroupCondition(Node):
    path: Text


@dataclass(frozen=True, slots=True)
class MacCondition(Node):
    """`mac 00:11:22:33:44:55, phones`: names are sets of MAC addresses."""

    addresses: tuple[MacAddress | Name, ...]


@dataclass(frozen=True, slots=True)
class SourcePortCondition(Node):
    elements: tuple[Number | NumberRange | Name, ...]
    exceptions: tuple[Number | NumberRange | Name, ...]


@dataclass(frozen=True, slots=True)
class DuringCondition(Node):
    """`during 08:00-12:00, 13:00-18:00 mon-fri`; either may be left out."""

    windows: tuple[TimeWindow, ...]
    days: tuple[Name, ...]


@dataclass(frozen=True, slots=True)
class UntilCondition(Node):
    """`until 2027-01-31`."""

    date: Date


@dataclass(frozen=True, slots=True)
class MarkCondition(Node):
    """`mark 0x10` or `mark 0x10/0xff`."""

    mark: Masked | Number


@dataclass(frozen=True, slots=True)
class DscpCondition(Node):
    """`dscp ef, 8-15`."""

    values: tuple[Name | NumberRange | Number, ...]


@dataclass(frozen=True, slots=True)
class SizeCondition(Node):
    """`size 0-100`."""

    values: tuple[NumberRange | Number, ...]


@dataclass(frozen=True, slots=True)
class FamilyCondition(Node):
    family: str  # ipv4, ipv6


@dataclass(frozen=True, slots=True)
class IpsecCondition(Node):
    """`ipsec` or `except ipsec`: whether it came out of an IPsec tunnel or transport."""

    sign: str | None  # except


Condition = (
    LimitCondition
    | ConnectionsCondition
    | OwnerCondition
    | CgroupCondition
    | MacCondition
    | SourcePortCondition
    | DuringCondition
    | UntilCondition
    | MarkCondition
    | DscpCondition
    | SizeCondition
    | FamilyCondition
    | IpsecCondition
)


@dataclass(frozen=True, slots=True)
class EssentialsSetting(Node):
    value: str  # on, off


@dataclass(frozen=True, slots=True)
class InvalidSetting(Node):
    value: str  # drop, accept
    log: LogOption | None


@dataclass(frozen=True, slots=True)
class OnReloadSetting(Node):
    value: str  # keep, cut


@dataclass(frozen=True, slots=True)
class LogLimitSetting(Node):
    limit: RateNode | Keyword  # Keyword: none


@dataclass(frozen=True, slots=True)
class TimeSetting(Node):
    value: str  # utc, local


@dataclass(frozen=True, slots=True)
class CountersSetting(Node):
    value: str  # on, off


Setting = (
    EssentialsSetting
    | InvalidSetting
    | OnReloadSetting
    | LogLimitSetting
    | TimeSetting
    | CountersSetting
)


@dataclass(frozen=True, slots=True)
class SettingsNode(Node):
    items: tuple[Setting, ...]
