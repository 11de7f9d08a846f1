"""A client that does not train: it returns what it got plus a constant of its own."""

from __future__ import annotations

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()  # type: ignore[untyped-decorator]
def train(message: Message, context: Context) -> Message:
    """Return the model plus the constant of this node."""
    constant = np.float32(context.node_config["constant"])
    model = message.content["arrays"]
    arrays = {name: Array(array.numpy() + constant) for name, array in model.items()}
    metrics = MetricRecord({"num-examples": 1})
    content = RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics})
    return Message(content=content, reply_to=message)
