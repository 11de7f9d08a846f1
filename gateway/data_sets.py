"""Which data are which: names tied to keyed digests, so that charged data keep their account.

The key of the digests is made in the ledger and never leaves it; nor do the digests.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import Connection, delete, insert, select

from common.plan import Unit
from gateway import ledger_chain
from gateway.charges import DataAlreadyCharged, DataSetBinding, DataSetChanged
from gateway.ledger_tables import CHARGES, DATA_SETS, RUNS, UNITS

MOST_SHARED = 0.1  # of a data set's examples may have been charged under other names


def bind(
    connection: Connection, key: bytes, name: str, content_digests: Sequence[bytes]
) -> DataSetBinding:
    """Tie `name` to the content, or find it tied already.

    Args:
        connection: within a transaction.
        key: of the ledger's digests.
        name: the operator's name for the data set.
        content_digests: one for each example, in the order of the rows.

    Raises:
        DataSetChanged: the name was charged with other content.
        DataAlreadyCharged: more than a tenth of the examples, or of another data set's, would
            be charged under several names.
    """
    units = [_keyed(key, b"unit", digest) for digest in content_digests]
    binding = DataSetBinding(name, _keyed(key, b"data set", b"".join(units)).hex())
    known = select(DATA_SETS.c.digest).where(DATA_SETS.c.name == name)
    if connection.scalar(known) == binding.digest:
        return binding
    forget_uncharged(connection)
    if connection.scalar(known) is not None:
        raise DataSetChanged(name)
    _refuse_charged(connection, name, set(units))
    connection.execute(insert(DATA_SETS).values(name=name, digest=binding.digest))
    rows = [{"data_set": name, "digest": unit} for unit in sorted(set(units))]
    if rows:
        connection.execute(insert(UNITS), rows)
    return binding


def grouped(
    key: bytes, data: DataSetBinding, unit: Unit, units: Sequence[Sequence[int]]
) -> DataSetBinding:
    """Return the binding of data and of how `unit` groups their rows.

    A round's keys are bound to it: the same rows, grouped otherwise, would give another sum, and
    the difference of two updates under one noise is the data.
    """
    if unit is Unit.EXAMPLE:
        return data
    content = json.dumps([data.digest, unit, [list(rows) for rows in units]]).encode()
    return replace(data, digest=_keyed(key, b"grouped data set", content).hex())


def forget_uncharged(connection: Connection) -> None:
    """Drop the names, and the runs, on which nothing was ever charged: they owe nothing."""
    merged = ledger_chain.merged(connection)
    runs, names = {each.run for each in merged}, {each.data_set for each in merged}
    uncharged = RUNS.c.run.not_in(select(CHARGES.c.run)) & RUNS.c.run.not_in(runs)
    connection.execute(delete(RUNS).where(uncharged))
    unused = DATA_SETS.c.name.not_in(select(RUNS.c.data_set)) & DATA_SETS.c.name.not_in(names)
    connection.execute(delete(DATA_SETS).where(unused))


def _refuse_charged(connection: Connection, name: str, units: set[bytes]) -> None:
    """Raise DataAlreadyCharged unless few units, of these and of those, have several accounts.

    What they share is counted over all names together: neither ten names of a tenth each nor a
    small data set within a large one pass.
    """
    charged = defaultdict[str, set[bytes]](set)
    for row in connection.execute(select(UNITS)):
        charged[row.data_set].add(row.digest)
    names_of = Counter(unit for each in (units, *charged.values()) for unit in each)
    touched = {other: theirs for other, theirs in charged.items() if theirs & units}
    for each in (units, *touched.values()):
        if sum(names_of[unit] > 1 for unit in each) > MOST_SHARED * len(each):
            shared = sum(names_of[unit] > 1 for unit in units)
            raise DataAlreadyCharged(name, charged_as=sorted(touched), shared=shared)


def _keyed(key: bytes, purpose: bytes, content: bytes) -> bytes:
    return hmac.digest(key, purpose + b"\0" + content, hashlib.sha256)
