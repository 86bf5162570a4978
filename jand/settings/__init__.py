"""Every setting of jand, and where each value came from: flags over `JAND_*` over `<root>/jand.toml` over defaults.

The only package that interprets the environment. What is unknown or wrong is a `SettingsError` that names the key and its place; nothing is guessed or ignored.
"""

from jand.settings.loading import Loaded, load, shown
from jand.settings.schema import Download, Known, LogFormat, LogLevel, Settings, known_settings

__all__ = ["Download", "Known", "Loaded", "LogFormat", "LogLevel", "Settings", "known_settings", "load", "shown"]
