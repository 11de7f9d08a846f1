"""An OpenID Connect provider in a process of its own: discovery, keys, and tokens as a test asks.

Tokens and keys are written by hand with `cryptography`: what reads them is not what made them.
`python -m tests.provider CERTIFICATE KEY` serves HTTPS and prints its address.
"""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from http.client import HTTPSConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit
from urllib.request import Request, urlopen

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from common.tls import TlsFiles

ROOT = Path(__file__).parents[1]


def base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def unsigned(header: dict, claims: dict) -> str:
    """Return the two parts of a token that its signature is over."""
    return ".".join(base64url(json.dumps(part).encode()) for part in (header, claims))


class Keys:
    """One key of each kind, named after its algorithm and how often keys were changed."""

    def __init__(self, generation: int) -> None:
        self.private = {
            "RS256": rsa.generate_private_key(65537, 2048),
            "ES256": ec.generate_private_key(ec.SECP256R1()),
            "EdDSA": ed25519.Ed25519PrivateKey.generate(),
        }
        self.generation = generation

    def name(self, algorithm: str) -> str:
        return f"{algorithm.lower()}-{self.generation}"

    def sign(self, algorithm: str, data: bytes) -> bytes:
        key = self.private[algorithm]
        if algorithm == "RS256":
            return key.sign(data, padding.PKCS1v15(), hashes.SHA256())
        if algorithm == "EdDSA":
            return key.sign(data)
        r, s = decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32) + s.to_bytes(32)

    def published(self) -> list[dict]:
        public = {name: key.public_key() for name, key in self.private.items()}
        rsa_numbers, point = public["RS256"].public_numbers(), public["ES256"].public_numbers()
        raw = public["EdDSA"].public_bytes(Encoding.Raw, PublicFormat.Raw)
        parts = {
            "RS256": {
                "kty": "RSA",
                "n": base64url(rsa_numbers.n.to_bytes(256)),
                "e": base64url(rsa_numbers.e.to_bytes(3)),
            },
            "ES256": {
                "kty": "EC",
                "crv": "P-256",
                "x": base64url(point.x.to_bytes(32)),
                "y": base64url(point.y.to_bytes(32)),
            },
            "EdDSA": {"kty": "OKP", "crv": "Ed25519", "x": base64url(raw)},
        }
        return [
            {"kid": self.name(algorithm), "use": "sig", "alg": algorithm, **part}
            for algorithm, part in parts.items()
        ]


class Site(ThreadingHTTPServer):
    """What the provider serves."""

    daemon_threads = True

    def __init__(self, certificate: str, key: str) -> None:
        super().__init__(("127.0.0.1", 0), Desk)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.issuer = f"https://127.0.0.1:{self.server_port}"
        self.keys_at = f"{self.issuer}/keys"
        self.keys = Keys(1)
        self.looks = 0
        self.codes: dict[str, dict | None] = {}
        self.signs_in: dict = {}  # claims of whoever is at the browser

    def authorized(self, asked: dict) -> str:
        """Return where a browser goes once its person has said yes, which happens at once."""
        assert asked["response_type"] == "code"
        assert asked["code_challenge_method"] == "S256"
        code = f"code-{len(self.codes)}"
        self.codes[code] = asked
        back = {"code": code, "state": asked["state"], "iss": self.issuer}
        return f"{asked['redirect_uri']}?{urlencode(back)}"

    def exchanged(self, asked: dict) -> dict:
        """Return the ID token for a code, once, to whoever knows what it was begun with."""
        begun = self.codes.get(asked["code"]) or {}
        self.codes[asked["code"]] = None
        digest = base64url(sha256(asked["code_verifier"].encode()).digest())
        same = all(begun.get(name) == asked[name] for name in ("client_id", "redirect_uri"))
        if not same or begun.get("code_challenge") != digest:
            return {}
        claims = {"aud": asked["client_id"], "nonce": begun["nonce"], **self.signs_in}
        return {"id_token": self.token({"algorithm": "ES256", "header": {}, "claims": claims})}

    def token(self, asked: dict) -> str:
        algorithm = asked["algorithm"]
        header = {"alg": algorithm, "kid": self.keys.name(algorithm), **asked["header"]}
        header = {name: value for name, value in header.items() if value is not None}
        parts = unsigned(header, asked["claims"])
        return f"{parts}.{base64url(self.keys.sign(algorithm, parts.encode()))}"


class Desk(BaseHTTPRequestHandler):
    """Answers one request."""

    server: Site

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        if path == "/.well-known/openid-configuration":
            issuer = self.server.issuer
            ends = {f"{each}_endpoint": f"{issuer}/{each}" for each in ("authorization", "token")}
            self._answer({"issuer": issuer, "jwks_uri": self.server.keys_at, **ends})
        elif path == "/authorization":
            self.send_response(302)
            self.send_header("location", self.server.authorized(dict(parse_qsl(query))))
            self.end_headers()
        elif self.path == "/keys":
            self.server.looks += 1
            self._answer({"keys": self.server.keys.published()})
        elif self.path == "/elsewhere":
            self.send_response(302)
            self.send_header("location", "/keys")
            self.end_headers()
        elif self.path == "/endless":
            self._answer({"keys": "x" * (1 << 20)})
        else:
            self.send_error(404)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.path == "/token" and body.startswith(b"grant_type="):
            found = self.server.exchanged(dict(parse_qsl(body.decode())))
            self._answer(found) if found else self.send_error(400)
            return
        asked = json.loads(body)
        if self.path == "/sign-in":
            self.server.signs_in = asked
            self._answer({})
        elif self.path == "/token":
            self._answer({"token": self.server.token(asked)})
        elif self.path == "/point":
            self.server.keys_at = asked["to"]
            self._answer({})
        elif self.path == "/change":
            self.server.keys = Keys(self.server.keys.generation + 1)
            self._answer({})
        else:
            self._answer({"looks": self.server.looks})

    def _answer(self, found: dict) -> None:
        body = json.dumps(found).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's
        """Say nothing."""


@dataclass(frozen=True)
class Provider:
    """A provider that runs, as a test sees it."""

    issuer: str
    authority: Path
    process: subprocess.Popen[str]

    def token(self, claims: dict, algorithm: str = "ES256", **header: object) -> str:
        """Return a token of these claims, signed by the provider's key for the algorithm."""
        return self._ask("token", claims=claims, algorithm=algorithm, header=header)["token"]

    def sign_in(self, claims: dict) -> None:
        """Let somebody of these claims sit at every browser that comes."""
        self._ask("sign-in", **claims)

    def authorize(self, url: str) -> str:
        """Follow a browser to the provider; return where it is sent back to."""
        parts = urlsplit(url)
        context = ssl.create_default_context(cafile=str(self.authority))
        connection = HTTPSConnection(parts.hostname, parts.port, timeout=10, context=context)
        with closing(connection):
            connection.request("GET", f"{parts.path}?{parts.query}")
            return connection.getresponse().getheader("location")

    def change_keys(self) -> None:
        self._ask("change")

    def point(self, to: str) -> None:
        """Say that the keys are elsewhere."""
        self._ask("point", to=to)

    def looks(self) -> int:
        """Return how often its keys were read."""
        return self._ask("looks")["looks"]

    def published(self) -> list[dict]:
        with self._open(Request(f"{self.issuer}/keys")) as answer:  # noqa: S310 - https, ours
            return json.load(answer)["keys"]

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    def _ask(self, path: str, **asked: object) -> dict:
        data = json.dumps(asked).encode()
        with self._open(Request(f"{self.issuer}/{path}", data)) as answer:  # noqa: S310
            return json.load(answer)

    @property
    def _open(self):
        context = ssl.create_default_context(cafile=str(self.authority))
        return partial(urlopen, context=context, timeout=10)


@contextmanager
def running(files: TlsFiles) -> Iterator[Provider]:
    """Run a provider, with the certificate of `files`, inside the block."""
    command = [sys.executable, "-m", "tests.provider", str(files.certificate), str(files.key)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            issuer = process.stdout.readline().strip()
            yield Provider(issuer, files.authority, process)
        finally:
            process.kill()


def main() -> None:
    site = Site(*sys.argv[1:])
    print(site.issuer, flush=True)  # noqa: T201 - how its address is learned
    site.serve_forever()


if __name__ == "__main__":
    main()
