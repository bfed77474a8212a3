"""The policy as written: one frozen class for each grammar rule; nothing is resolved here.

Every node has the span of its own text. Text that stood in quotes has lost them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from policylang.source import SourceFile
from policylang.syntax.clauses import (
    AddOption as AddOption,
)
from policylang.syntax.clauses import (
    AlsoOption as AlsoOption,
)
from policylang.syntax.clauses import (
    CgroupCondition as CgroupCondition,
)
from policylang.syntax.clauses import (
    Condition as Condition,
)
from policylang.syntax.clauses import (
    ConnectionsCondition as ConnectionsCondition,
)
from policylang.syntax.clauses import (
    CountersSetting as CountersSetting,
)
from policylang.syntax.clauses import (
    DscpCondition as DscpCondition,
)
from policylang.syntax.clauses import (
    DuringCondition as DuringCondition,
)
from policylang.syntax.clauses import (
    EssentialsSetting as EssentialsSetting,
)
from policylang.syntax.clauses import (
    FamilyCondition as FamilyCondition,
)
from policylang.syntax.clauses import (
    InvalidSetting as InvalidSetting,
)
from policylang.syntax.clauses import (
    IpsecCondition as IpsecCondition,
)
from policylang.syntax.clauses import (
    LimitCondition as LimitCondition,
)
from policylang.syntax.clauses import (
    LogLimitSetting as LogLimitSetting,
)
from policylang.syntax.clauses import (
    LogOption as LogOption,
)
from policylang.syntax.clauses import (
    MacCondition as MacCondition,
)
from policylang.syntax.clauses import (
    MarkCondition as MarkCondition,
)
from policylang.syntax.clauses import (
    NameOption as NameOption,
)
from policylang.syntax.clauses import (
    OnReloadSetting as OnReloadSetting,
)
from policylang.syntax.clauses import (
    Option as Option,
)
from policylang.syntax.clauses import (
    OwnerCondition as OwnerCondition,
)
from policylang.syntax.clauses import (
    Per as Per,
)
from policylang.syntax.clauses import (
    RateNode as RateNode,
)
from policylang.syntax.clauses import (
    RateValue as RateValue,
)
from policylang.syntax.clauses import (
    Setting as Setting,
)
from policylang.syntax.clauses import (
    SettingsNode as SettingsNode,
)
from policylang.syntax.clauses import (
    SizeCondition as SizeCondition,
)
from policylang.syntax.clauses import (
    SourcePortCondition as SourcePortCondition,
)
from policylang.syntax.clauses import (
    TimeSetting as TimeSetting,
)
from policylang.syntax.clauses import (
    UntilCondition as UntilCondition,
)
from policylang.syntax.expectation_nodes import (
    ExpectNode as ExpectNode,
)
from policylang.syntax.expectation_nodes import (
    SessionNode as SessionNode,
)
from policylang.syntax.expectation_nodes import (
    TestDecl as TestDecl,
)
from policylang.syntax.helper_nodes import (
    AssignItem as AssignItem,
)
from policylang.syntax.helper_nodes import (
    ExpectItem as ExpectItem,
)
from policylang.syntax.helper_nodes import (
    FamilyItem as FamilyItem,
)
from policylang.syntax.helper_nodes import (
    FaultsItem as FaultsItem,
)
from policylang.syntax.helper_nodes import (
    HelperDecl as HelperDecl,
)
from policylang.syntax.helper_nodes import (
    HelperDeclItem as HelperDeclItem,
)
from policylang.syntax.helper_nodes import (
    MatchItem as MatchItem,
)
from policylang.syntax.helper_nodes import (
    ModulesItem as ModulesItem,
)
from policylang.syntax.helper_nodes import (
    NatItem as NatItem,
)
from policylang.syntax.leaves import (
    Address as Address,
)
from policylang.syntax.leaves import (
    Date as Date,
)
from policylang.syntax.leaves import (
    Duration as Duration,
)
from policylang.syntax.leaves import (
    FileList as FileList,
)
from policylang.syntax.leaves import (
    Keyword as Keyword,
)
from policylang.syntax.leaves import (
    MacAddress as MacAddress,
)
from policylang.syntax.leaves import (
    Masked as Masked,
)
from policylang.syntax.leaves import (
    Name as Name,
)
from policylang.syntax.leaves import (
    Node as Node,
)
from policylang.syntax.leaves import (
    Number as Number,
)
from policylang.syntax.leaves import (
    NumberRange as NumberRange,
)
from policylang.syntax.leaves import (
    Text as Text,
)
from policylang.syntax.leaves import (
    TimeWindow as TimeWindow,
)
from policylang.syntax.rule_nodes import (
    EndItem as EndItem,
)
from policylang.syntax.rule_nodes import (
    EndListNode as EndListNode,
)
from policylang.syntax.rule_nodes import (
    ExceptMark as ExceptMark,
)
from policylang.syntax.rule_nodes import (
    IcmpWhat as IcmpWhat,
)
from policylang.syntax.rule_nodes import (
    Place as Place,
)
from policylang.syntax.rule_nodes import (
    PortsWhat as PortsWhat,
)
from policylang.syntax.rule_nodes import (
    ProtocolWhat as ProtocolWhat,
)
from policylang.syntax.rule_nodes import (
    PublishedNode as PublishedNode,
)
from policylang.syntax.rule_nodes import (
    WhatElement as WhatElement,
)
from policylang.syntax.service_nodes import (
    AnswersItem as AnswersItem,
)
from policylang.syntax.service_nodes import (
    DataItem as DataItem,
)
from policylang.syntax.service_nodes import (
    HelperItem as HelperItem,
)
from policylang.syntax.service_nodes import (
    IcmpItem as IcmpItem,
)
from policylang.syntax.service_nodes import (
    PortsItem as PortsItem,
)
from policylang.syntax.service_nodes import (
    ProtocolItem as ProtocolItem,
)
from policylang.syntax.service_nodes import (
    ServiceDecl as ServiceDecl,
)
from policylang.syntax.service_nodes import (
    ServiceGroup as ServiceGroup,
)
from policylang.syntax.service_nodes import (
    ServiceItem as ServiceItem,
)
from policylang.syntax.service_nodes import (
    WarnItem as WarnItem,
)
from policylang.syntax.set_nodes import (
    DynamicNode as DynamicNode,
)
from policylang.syntax.set_nodes import (
    ListedNode as ListedNode,
)
from policylang.syntax.set_nodes import (
    ListFile as ListFile,
)
from policylang.syntax.set_nodes import (
    LockedAddresses as LockedAddresses,
)
from policylang.syntax.set_nodes import (
    SetDecl as SetDecl,
)
from policylang.syntax.set_nodes import (
    SetElement as SetElement,
)
from policylang.syntax.treatment_nodes import (
    ClampNode as ClampNode,
)
from policylang.syntax.treatment_nodes import (
    DnatNode as DnatNode,
)
from policylang.syntax.treatment_nodes import (
    MarkNode as MarkNode,
)
from policylang.syntax.treatment_nodes import (
    MasqueradeNode as MasqueradeNode,
)
from policylang.syntax.treatment_nodes import (
    NetmapNode as NetmapNode,
)
from policylang.syntax.treatment_nodes import (
    OffloadNode as OffloadNode,
)
from policylang.syntax.treatment_nodes import (
    QueueNode as QueueNode,
)
from policylang.syntax.treatment_nodes import (
    RedirectNode as RedirectNode,
)
from policylang.syntax.treatment_nodes import (
    SnatNode as SnatNode,
)
from policylang.syntax.treatment_nodes import (
    TproxyNode as TproxyNode,
)
from policylang.syntax.treatment_nodes import (
    TreatmentNode as TreatmentNode,
)
from policylang.syntax.treatment_nodes import (
    UntrackedNode as UntrackedNode,
)
from policylang.syntax.zone_nodes import (
    AddressItem as AddressItem,
)
from policylang.syntax.zone_nodes import (
    GatewayItem as GatewayItem,
)
from policylang.syntax.zone_nodes import (
    HostDecl as HostDecl,
)
from policylang.syntax.zone_nodes import (
    HostItem as HostItem,
)
from policylang.syntax.zone_nodes import (
    InterfaceItem as InterfaceItem,
)
from policylang.syntax.zone_nodes import (
    NetworkItem as NetworkItem,
)
from policylang.syntax.zone_nodes import (
    ZoneDecl as ZoneDecl,
)

# --- declarations ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Include(Node):
    path: Text


PlainValue = Name | NumberRange | Number | Address | MacAddress | Duration | TimeWindow | Date
ParamValue = PlainValue | Masked | RateValue


@dataclass(frozen=True, slots=True)
class ParamDecl(Node):
    """`param NAME [= values]`; without values it has to be set from outside."""

    name: Name
    values: tuple[ParamValue, ...]


# --- rules --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RuleNode(Node):
    """`allow|deny|reject WHAT [PLACE] [with ANSWERS] [CONDITIONS] [OPTIONS]`.

    `place` is None where unsaid.
    """

    verb: str
    what: tuple[WhatElement, ...]
    place: Place | None
    answers: tuple[Name, ...]
    conditions: tuple[Condition, ...]
    options: tuple[Option, ...]


@dataclass(frozen=True, slots=True)
class UseNode(Node):
    groups: tuple[Name, ...]


@dataclass(frozen=True, slots=True)
class TrafficBlock(Node):
    """`traffic PLACE { … }`."""

    place: Place
    statements: tuple[RuleNode | UseNode | TrafficBlock, ...]


@dataclass(frozen=True, slots=True)
class RulesDecl(Node):
    """`rules NAME { … }`."""

    name: Name
    statements: tuple[RuleNode | UseNode | TrafficBlock, ...]


@dataclass(frozen=True, slots=True)
class DefaultNode(Node):
    """`default allow|deny|reject inbound|outbound|forward [with ANSWERS] [OPTIONS]`."""

    verb: str
    direction: str
    answers: tuple[Name, ...]
    options: tuple[Option, ...]


@dataclass(frozen=True, slots=True)
class Protection(Node):
    """`spoofing`, `syn-flood limit 50/second`."""

    name: Name
    rate: RateNode | None


@dataclass(frozen=True, slots=True)
class ProtectNode(Node):
    """`protect from X against PROTECTIONS [OPTIONS]`."""

    source: EndListNode
    protections: tuple[Protection, ...]
    options: tuple[Option, ...]


@dataclass(frozen=True, slots=True)
class NativeNode(Node):
    """`native nft input "LINE" [ipv4|ipv6]`."""

    target: Name
    chain: Name
    text: Text
    family: str | None


# --- hosts ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OnBlock(Node):
    """`on HOSTS [except HOSTS] { … }`: its statements hold for those hosts alone."""

    hosts: tuple[Name, ...]
    exceptions: tuple[Name, ...]
    statements: tuple[Statement, ...]


Statement = (
    Include
    | ZoneDecl
    | SetDecl
    | ServiceDecl
    | ServiceGroup
    | RuleNode
    | UseNode
    | TrafficBlock
    | RulesDecl
    | DefaultNode
    | SettingsNode
    | ProtectNode
    | NativeNode
    | TreatmentNode
    | ParamDecl
    | HostDecl
    | OnBlock
    | HelperDecl
    | TestDecl
    | ExpectNode
    | SessionNode
)


@dataclass(frozen=True, slots=True)
class Document:
    """One file, as parsed: the statements that could be read.

    `broken` are the names that the others declare, so that nobody reports them as unknown.
    """

    statements: tuple[Statement, ...]
    broken: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Loaded:
    """A policy and all that it includes or names, read and parsed.

    `statements` are in reading order, without `include`. `lists` is keyed by the name of the file
    that says `file "PATH"` and by what it says; one that could not be read is missing. `services`
    are those of the catalogue that the policy names, directly or by a group, and does not declare;
    `known_services` are the names of all. `helpers` are the catalogue's, where something needs one.
    `interfaces` are names that stand for one each, where no policy declares zones. `broken` are the
    names of statements that could not be read, in all files. `sets` and `known_sets` are the
    catalogue's groups of addresses, as `services` and `known_services` are its services. `locked`
    is what the lock file holds, None where no set asks for it or where it is damaged, which was
    reported. `files` are those of the policy, in reading order, then those of an inventory, which
    are `beside` it.

    Of a policy of several hosts, `here` is the one that is meant: `statements` are those that hold
    there. `elsewhere` are the zones that other hosts have and this one has not, each with the names
    of those hosts.
    """

    statements: tuple[Statement, ...]
    lists: dict[tuple[str, FileList], ListFile]
    services: dict[str, ServiceDecl | ServiceGroup]
    known_services: tuple[str, ...]
    helpers: dict[str, HelperDecl]
    broken: tuple[str, ...] = ()
    sets: dict[str, SetDecl] = field(default_factory=dict)
    known_sets: tuple[str, ...] = ()
    locked: LockedAddresses | None = None
    interfaces: tuple[Name, ...] = ()
    files: tuple[SourceFile, ...] = ()
    beside: tuple[SourceFile, ...] = ()
    here: str | None = None
    elsewhere: dict[str, tuple[tuple[ZoneDecl, ...], tuple[str, ...]]] = field(default_factory=dict)

    @property
    def hosts(self) -> tuple[str, ...]:
        """The names of the hosts that the policy declares."""
        found = (s.name.text for s in self.statements if isinstance(s, HostDecl))
        return tuple(dict.fromkeys(found))
