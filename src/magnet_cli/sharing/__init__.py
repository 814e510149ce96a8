"""Exchange volumes with others: fetch, import, export, publish."""

from magnet_cli.sharing.fetching import fetch as fetch
