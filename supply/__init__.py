"""What the server is made of beside its own code: its licences, its bill of materials, and a build of Argon2."""

from pathlib import Path

ROOT = Path(__file__).parent.parent
LOCK = ROOT / "requirements" / "server.lock"
"""What is shipped, every extra included."""
