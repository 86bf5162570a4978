"""Commands that may not read what its rights forbid, also where tests run as root."""

from __future__ import annotations

import os
from typing import Final

AS_OTHERS: Final = (
    ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all") if os.geteuid() == 0 else ()
)
"""Before a command: takes from root what lets it read everything, and leaves it the owner of the checkout, which others may have no way into."""
