"""The documented examples, read by the very Structs that answer."""

import msgspec

from opsapi.applications.details_model import Details
from opsapi.kit.endpoint import Example

DETAILS = Example(
    name="A web application",
    response=msgspec.json.decode(
        """\
{
  "application": {
    "id": "app-123",
    "name": "web-app",
    "workspace_id": "ws-123",
    "status": "running",
    "created_at": "2024-01-01T00:00:00Z"
  },
  "deployment": {
    "replicas": {
      "desired": 3,
      "ready": 3,
      "available": 3,
      "updated": 3
    },
    "strategy": "RollingUpdate",
    "image": "nginx:1.21.6",
    "resources": {
      "requests": {
        "cpu": "100m",
        "memory": "128Mi"
      },
      "limits": {
        "cpu": "500m",
        "memory": "512Mi"
      }
    }
  },
  "pods": [
    {
      "name": "web-app-7d8c9f5b6-abc12",
      "status": "running",
      "ready": true,
      "node": "worker-node-1",
      "cpu_usage": 45.2,
      "memory_usage": 187,
      "restarts": 0,
      "age": "2d5h"
    }
  ],
  "services": [
    {
      "name": "web-app-service",
      "type": "ClusterIP",
      "cluster_ip": "10.96.45.123",
      "ports": [
        {
          "port": 80,
          "target_port": 8080,
          "protocol": "TCP"
        }
      ]
    }
  ],
  "health": {
    "overall_status": "healthy",
    "readiness_checks": {
      "passing": 3,
      "failing": 0
    },
    "liveness_checks": {
      "passing": 3,
      "failing": 0
    }
  },
  "metrics": {
    "cpu_usage_percentage": 45.2,
    "memory_usage_percentage": 36.5,
    "request_rate": 125.7,
    "error_rate": 0.2,
    "response_time_p95": 245
  }
}
""",
        type=Details,
    ),
)
