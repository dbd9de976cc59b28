"""What `latchgate doctor` asks of the settings and of what they name. Whether the ports answer, its command asks."""

from __future__ import annotations

from collections.abc import Sequence

from latchgate_server.admin.last_administrator import EVERYTHING
from latchgate_server.bootstrap import CONNECTIONS, certificate_files, open_limit_store
from latchgate_server.config import Settings, SettingsProblem
from latchgate_server.core.diagnosis import (
    Finding,
    Level,
    LimitStoreFacts,
    judge_data,
    judge_limit_store,
    judge_replicas,
    judge_server,
)
from latchgate_server.core.errors import LatchgateError, StoreUnavailable
from latchgate_server.core.model import ROOT_TENANT
from latchgate_server.storage.examination import Examination, Unreachable
from latchgate_server.storage.failures import StatementRefused
from latchgate_server.system import SystemClock
from latchgate_server.transport.certificates import CertificateProblem
from latchgate_server.transport.tls import check

_DAY = 86_400.0
_SOON = 14 * _DAY


async def diagnose(settings: Settings) -> Sequence[Finding]:
    """Findings about these settings, and the database and the store of limits that they name."""
    findings = [judge_limit_store(await _limit_store_facts(settings), settings.on_limit_store_loss == "deny")]
    pepper_ids = _pepper_ids(settings, findings)
    try:
        url = settings.require_database_url()
    except SettingsProblem as problem:
        return [*findings, Finding("database", Level.WRONG, "its address is not known", str(problem))]
    try:
        examination = await Examination.open(url, settings.lease, SystemClock())
    except Unreachable as problem:
        advice = "see that PostgreSQL runs, and that LATCHGATE_DATABASE_URL names it and a user whom it lets in"
        return [*findings, Finding("database", Level.WRONG, f"it cannot be reached: {problem}", advice)]
    try:
        await _examine(examination, settings, pepper_ids, findings)
    except (LatchgateError, StatementRefused) as problem:
        advice = "try again; if it stays so, see the database's log"
        findings.append(Finding("database", Level.WRONG, f"it could not be examined: {problem}", advice))
    finally:
        await examination.close()
    return findings


def judge_certificate(settings: Settings) -> Finding | None:
    """Whether the server's certificate can be served with, and for how long; None without TLS."""
    files = certificate_files(settings)
    if files is None:
        return None
    try:
        certificates = check(files)
    except CertificateProblem as problem:
        advice = "put a certificate there that works, and its key; a server that runs takes them over by itself"
        return Finding("certificate", Level.WRONG, str(problem), advice)
    left = certificates.expire_time - SystemClock().now()
    found = f"{files.cert} is valid for {left / _DAY:.0f} more days"
    if left < _SOON:
        return Finding("certificate", Level.WARNING, found, "renew it; a server that runs takes it over by itself")
    return Finding("certificate", Level.OK, found)


async def _limit_store_facts(settings: Settings) -> LimitStoreFacts | str | None:
    """What the store of rate limits answers, or why it does not; None where there is none."""
    try:
        store = open_limit_store(settings)
    except SettingsProblem as problem:
        return str(problem)
    if store is None:
        return None
    try:
        return await store.examine()
    except StoreUnavailable as problem:
        return str(problem)
    finally:
        await store.close()


def _pepper_ids(settings: Settings, findings: list[Finding]) -> Sequence[str]:
    try:
        return [pepper.pepper_id for pepper in settings.require_peppers()]
    except SettingsProblem as problem:
        advice = "use the one that the keys were hashed under; a new one is for a new deployment alone"
        findings.append(Finding("pepper", Level.WRONG, str(problem), advice))
        return []


async def _examine(
    examination: Examination, settings: Settings, pepper_ids: Sequence[str], findings: list[Finding]
) -> None:
    """Add what there is to say about a database that answers."""
    server = await examination.server()
    problem = "" if server.is_standby else await examination.schema_problem()
    if server.is_standby or problem:
        findings.extend(judge_server(server, settings.lease, settings.workers, CONNECTIONS))
        if problem:
            advice = "run `latchgate migrate`" if "migrate" in problem else "run the version that it was migrated by"
            findings.append(Finding("schema", Level.WRONG, problem, advice))
        return
    data = await examination.data(ROOT_TENANT, EVERYTHING)
    watched = await examination.watch(data.revision)
    processes = max(settings.workers, sum(entry.beats for entry in watched))
    findings.extend(judge_server(server, settings.lease, processes, CONNECTIONS))
    findings.append(Finding("schema", Level.OK, "it is current"))
    findings.extend(judge_data(data, pepper_ids))
    findings.extend(judge_replicas(watched, data.revision))
