"""A widget's channel whose other end is a test."""

import threading
from typing import Any

from comm.base_comm import BaseComm


class Channel(BaseComm):
    """Keeps what the widget sends, with the thread it was sent from."""

    def __init__(self, **options: Any) -> None:
        self.sent: list[dict[str, Any]] = []
        super().__init__(**options)

    def publish_msg(self, msg_type, data=None, metadata=None, buffers=None, **keys) -> None:
        if msg_type == "comm_msg" and data.get("method") == "custom":
            thread = threading.current_thread()
            self.sent.append({**data["content"], "body": buffers[0], "thread": thread})


def tell(widget: Any, content: dict[str, Any], *buffers: bytes) -> None:
    """Send the widget what its page would."""
    data = {"method": "custom", "content": content}
    widget.comm.handle_msg({"content": {"data": data}, "buffers": list(buffers)})
