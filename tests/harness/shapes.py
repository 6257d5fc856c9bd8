"""The types of FunctionGraph's published runtimes (Go and Java, 2025), as they decode events: every member, no others."""

STRINGS = {"*": str}
KAFKA = {
    "event_version": str,
    "event_time": int,
    "trigger_type": str,
    "region": str,
    "instance_id": str,
    "records": [{"messages": [str], "topic_id": str}],
}
TIMER = {"version": str, "time": str, "trigger_type": str, "trigger_name": str, "user_event": str}
APIG = {
    "isBase64Encoded": bool,
    "httpMethod": str,
    "path": str,
    "body": str,
    "pathParameters": STRINGS,
    "headers": STRINGS,
    "queryStringParameters": STRINGS,
    "user_data": str,
    "requestContext": {"apiId": str, "requestId": str, "stage": str, "sourceIp": str},
}
ASYNC_NOTIFICATION = {
    "timestamp": str,
    "request_payload": str,
    "response_payload": str,
    "response_context": {"status_code": int, "function_error": str},
    "request_context": {
        "request_id": str,
        "function_urn": str,
        "condition": str,
        "approximate_invoke_count": int,
    },
}


def strict(value, shape, path="event"):
    """Raises unless the value has exactly the shape."""
    if isinstance(shape, list):
        assert type(value) is list, f"{path}: {type(value).__name__}"
        for i, item in enumerate(value):
            strict(item, shape[0], f"{path}[{i}]")
    elif isinstance(shape, dict):
        assert type(value) is dict, f"{path}: {type(value).__name__}"
        names = set(value) if "*" in shape else set(shape)
        assert set(value) == names, f"{path}: {sorted(set(value) ^ names)}"
        for name in names:
            strict(value[name], shape.get(name, shape.get("*")), f"{path}.{name}")
    else:
        assert type(value) is shape, f"{path}: {type(value).__name__}, not {shape.__name__}"
    return value
