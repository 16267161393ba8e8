"""Certificates for a test: an authority of its own, made by openssl, and what it signs."""
import os
import subprocess

NEW_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]


class Authority:
    """certificate: the path that clients trust."""

    def __init__(self, folder):
        self.folder = folder
        self.certificate, self.key = self.path("ca.pem"), self.path("ca.key")
        self.openssl("req", "-x509", *NEW_KEY, "-subj", "/CN=test authority", "-days", "2",
                     "-keyout", self.key, "-out", self.certificate)

    def path(self, name):
        return os.path.join(self.folder, name)

    def openssl(self, *arguments):
        subprocess.run(["openssl", *arguments], check=True, capture_output=True)

    def issue(self, name):
        """Signs a certificate, for a server on 127.0.0.1 or for a client; gives its path and its key's."""
        certificate, key = self.path(name + ".pem"), self.path(name + ".key")
        request, names = self.path(name + ".csr"), self.path(name + ".ext")
        with open(names, "w", encoding="ascii") as f:
            f.write("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
        self.openssl("req", *NEW_KEY, "-subj", "/CN=" + name, "-keyout", key, "-out", request)
        self.openssl("x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self.key,
                     "-CAcreateserial", "-extfile", names, "-days", "2", "-out", certificate)
        return certificate, key
