"""What a release is made of, from a lock and from what its packages say about themselves.

    python templates/sbom.py [LOCK]      CycloneDX 1.6 as JSON: names, versions, hashes, licences
    python templates/sbom.py --licenses  docs/licenses.md

LOCK is requirements.txt, or requirements-machine.txt for the image of one machine. Run it where the lock is
installed: licences are read from there. The same lock gives the same bytes.
"""

from __future__ import annotations

import json
import re
import sys
import uuid
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[1]
EVERYTHING = "requirements.txt"
PIN = re.compile(
    r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^ ;\\]+)(?: ; (?P<marker>[^\\]+?))? \\\n"
    r"(?P<hashes>(?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)",
    re.MULTILINE,
)
NAMESPACE = uuid.UUID("6f3a1a44-6d0e-5e5b-9a0e-2f4f3c1f8f10")
# What packages write in place of an SPDX expression, in small letters.
SAID = {
    "apache 2": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "http://www.apache.org/licenses/license-2.0": "Apache-2.0",
    "mit license": "MIT",
    "3-clause bsd license": "BSD-3-Clause",
    "bsd 3-clause license": "BSD-3-Clause",
    "zpl 2.1": "ZPL-2.1",
}
SPDX = ("Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MIT OR Apache-2.0", "MPL-2.0", "PSF-2.0")
# Whose words could mean several; and whom no Linux with Python 3.11 installs, from their own files.
KNOWN = {
    "async-timeout": "Apache-2.0",
    "exceptiongroup": "MIT",
    "pyasn1-modules": "BSD-2-Clause",
    "python-dateutil": "Apache-2.0 OR BSD-3-Clause",
    "pywin32-ctypes": "BSD-3-Clause",
    "sqlparse": "BSD-3-Clause",
}


@dataclass(frozen=True)
class Pin:
    """One pin of a lock. marker: for which machines it is, "" for all."""

    name: str
    version: str
    marker: str
    hashes: tuple[str, ...]

    @property
    def purl(self) -> str:
        return f"pkg:pypi/{self.name.lower().replace('_', '-')}@{self.version}"


def pins(lock: str) -> list[Pin]:
    """All that it may install, on whichever machine."""
    found = []
    for one in PIN.finditer((ROOT / lock).read_text()):
        hashes = tuple(re.findall(r"[0-9a-f]{64}", one["hashes"]))
        found.append(Pin(one["name"], one["version"], one["marker"] or "", hashes))
    return found


def license_of(name: str) -> str:
    """An SPDX expression. Raises ValueError when nobody knows."""
    if name in KNOWN:
        return KNOWN[name]
    try:
        said = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        raise ValueError(f"{name} is not installed here: give its licence in KNOWN") from None
    expression = said.get("License-Expression")
    if expression:
        return str(expression)
    words = [(said.get("License") or "").partition("\n")[0].strip()]
    words += [
        one.rpartition(" :: ")[2] for one in said.get_all("Classifier") or () if one.startswith("License")
    ]
    for each in words:
        if each in SPDX:
            return each
        if each.lower() in SAID:
            return SAID[each.lower()]
    raise ValueError(f"{name} says {words} of its licence: give it in SAID, or in KNOWN")


def own_version() -> str:
    found = re.search(r'^    version="([^"]+)"', (ROOT / "setup.py").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


def bill(lock: str) -> dict[str, object]:
    """Raises ValueError."""
    components = [
        {
            "type": "library",
            "bom-ref": pin.purl,
            "name": pin.name,
            "version": pin.version,
            "purl": pin.purl,
            "licenses": [{"expression": license_of(pin.name)}],
            "hashes": [{"alg": "SHA-256", "content": one} for one in pin.hashes],
            **({"properties": [{"name": "pip:marker", "value": pin.marker}]} if pin.marker else {}),
        }
        for pin in pins(lock)
    ]
    own = f"pkg:pypi/grantex-beam@{own_version()}"
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(NAMESPACE, json.dumps([own, components]))}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": own,
                "name": "grantex-beam",
                "version": own_version(),
                "purl": own,
                "licenses": [{"license": {"id": "Apache-2.0"}}],
            },
            "properties": [{"name": "grantex-beam:lock", "value": lock}],
        },
        "components": components,
    }


def page() -> Iterator[str]:
    """Lines of docs/licenses.md. Raises ValueError."""
    by_license: dict[str, set[str]] = defaultdict(set)
    for pin in pins(EVERYTHING):
        by_license[license_of(pin.name)].add(pin.name)
    yield "# Licences\n"
    yield "grantex-beam is under the Apache License 2.0. These are the licences (SPDX) of all that"
    yield "`requirements.txt` installs, as its packages tell them; `make sbom` writes this page, and bills of"
    yield "materials (CycloneDX, with versions and hashes) into `dist`.\n"
    yield "| licence | packages |\n|---|---|"
    for name, packages in sorted(by_license.items(), key=lambda each: (-len(each[1]), each[0])):
        yield f"| {name} | {', '.join(sorted(packages))} |"


def main(arguments: list[str]) -> int:
    """0; 1 when a licence is not known; 2 for an unknown argument."""
    if len(arguments) > 1 or any(one.startswith("-") and one != "--licenses" for one in arguments):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        if arguments == ["--licenses"]:
            print("\n".join(page()))
        else:
            print(json.dumps(bill(*(arguments or [EVERYTHING])), indent=2))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
