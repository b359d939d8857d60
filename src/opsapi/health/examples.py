"""The documented example, read by the very Structs that answer."""

import msgspec

from opsapi.health.model import Health
from opsapi.kit.endpoint import Example

HEALTH = Example(
    name="All is well",
    response=msgspec.json.decode(
        """\
{
  "status": "healthy",
  "timestamp": "2024-01-20T15:30:00Z",
  "version": "1.4.2",
  "components": {
    "api_server": {
      "status": "healthy",
      "response_time_ms": 12,
      "uptime": "15d 4h 23m"
    },
    "database": {
      "status": "healthy",
      "connections": {
        "active": 45,
        "idle": 15,
        "max": 100
      },
      "query_performance": {
        "avg_response_ms": 8.5,
        "slow_queries": 0
      }
    },
    "kubernetes_api": {
      "status": "healthy",
      "version": "1.28.3",
      "nodes": {
        "total": 12,
        "ready": 12,
        "not_ready": 0
      }
    },
    "message_queue": {
      "status": "healthy",
      "queue_depth": 23,
      "consumer_lag": "0s"
    }
  },
  "workspaces": {
    "total": 156,
    "active": 148,
    "issues": 2
  },
  "resource_usage": {
    "cpu_percentage": 45.2,
    "memory_percentage": 67.8,
    "storage_percentage": 23.1
  }
}
""",
        type=Health,
    ),
)
