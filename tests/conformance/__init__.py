"""The API from outside: schemathesis against a running server and its own /openapi.json, with every check it has."""
