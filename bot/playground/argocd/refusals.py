"""How Argo CD's API says no: gRPC's codes, the HTTP statuses they become, and the two shapes of an error."""

from bot.playground.argocd.manifests import Json

INVALID, NOT_FOUND, FORBIDDEN, FAILED_PRECONDITION, UNKNOWN, UNAUTHENTICATED = 3, 5, 7, 9, 2, 16
STATUS = {
    INVALID: (400, "Bad Request"),
    NOT_FOUND: (404, "Not Found"),
    FORBIDDEN: (403, "Forbidden"),
    FAILED_PRECONDITION: (400, "Bad Request"),
    UNKNOWN: (500, "Internal Server Error"),
    UNAUTHENTICATED: (401, "Unauthorized"),
}


class Denied(Exception):
    """The API refuses, with a gRPC code and a message."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code

    @property
    def status(self) -> int:
        """The HTTP status."""
        return STATUS[self.code][0]

    def json(self) -> Json:
        """The body of a refused call."""
        return {"error": str(self), "code": self.code, "message": str(self)}

    def chunk(self) -> Json:
        """The last chunk of a stream that ends with this."""
        status, name = STATUS[self.code]
        return {
            "error": {
                "grpc_code": self.code,
                "http_code": status,
                "message": str(self),
                "http_status": name,
            }
        }
