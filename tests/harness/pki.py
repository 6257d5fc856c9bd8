"""Keys and certificates in a folder, made by openssl: NAME.key and NAME.pem, valid for two days."""

import subprocess

NEW_KEY = ("-newkey", "rsa:2048", "-nodes")


def openssl(folder, *arguments, data=None):
    """Its standard output."""
    return subprocess.run(
        ["openssl", *map(str, arguments)], cwd=folder, check=True, capture_output=True, input=data
    ).stdout


def self_signed(folder, name, subject, *options):
    """A certificate that signs itself, such as an authority's."""
    openssl(
        folder,
        *("req", "-x509", *NEW_KEY, "-days", "2", "-subj", f"/CN={subject}"),
        *("-keyout", f"{name}.key", "-out", f"{name}.pem", *options),
    )


def signed(folder, name, subject, extension, authority="ca"):
    """A certificate by an authority in the same folder, with one extension, as "subjectAltName=DNS:localhost"."""
    openssl(
        folder,
        *("req", *NEW_KEY, "-subj", f"/CN={subject}", "-keyout", f"{name}.key", "-out", f"{name}.csr"),
    )
    (folder / "ext").write_text(extension)
    openssl(
        folder,
        *("x509", "-req", "-in", f"{name}.csr", "-days", "2", "-out", f"{name}.pem", "-extfile", "ext"),
        *("-CA", f"{authority}.pem", "-CAkey", f"{authority}.key", "-CAcreateserial"),
    )
