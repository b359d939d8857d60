"""The documented examples, read by the very Structs that answer."""

import msgspec

from opsapi.kit.endpoint import Example
from opsapi.workspaces.nodes import Nodes
from opsapi.workspaces.overview_model import Overview

REGISTRATION = Example(
    name="A shared workspace, limited to two namespaces",
    request={
        "id": "ws-123",
        "name": "Production Environment",
        "organization": "acme",
        "plan": "shared",
        "mode": "propose",
        "namespaces": ["shop", "payments"],
        "kubeconfig": "apiVersion: v1\nkind: Config\n…",
        "context": "production",
    },
    response={
        "id": "ws-123",
        "name": "Production Environment",
        "organization": "acme",
        "plan": "shared",
        "mode": "propose",
        "namespaces": ["shop", "payments"],
        "source": "api",
        "acts_with_own_credentials": False,
        "status": "unknown",
        "created_at": "2024-01-01T00:00:00Z",
    },
    status=201,
)

OVERVIEW = Example(
    name="A production workspace",
    response=msgspec.json.decode(
        """\
{
  "workspace": {
    "id": "ws-123",
    "name": "Production Environment",
    "plan": "dedicated",
    "status": "active",
    "created_at": "2024-01-01T00:00:00Z"
  },
  "summary": {
    "applications": {
      "total": 15,
      "running": 14,
      "stopped": 0,
      "failed": 1
    },
    "projects": {
      "total": 3,
      "active": 3
    },
    "functions": {
      "total": 8,
      "active": 6,
      "cold": 2
    },
    "pipelines": {
      "total": 5,
      "active": 2,
      "last_run": "2024-01-20T14:30:00Z"
    }
  },
  "resource_usage": {
    "cpu": {
      "used": "8.5",
      "total": "16",
      "percentage": 53.1
    },
    "memory": {
      "used": "24Gi",
      "total": "32Gi",
      "percentage": 75.0
    },
    "storage": {
      "used": "450Gi",
      "total": "1Ti",
      "percentage": 43.9
    },
    "pods": {
      "running": 45,
      "pending": 2,
      "failed": 1
    }
  },
  "health_metrics": {
    "overall_score": 85,
    "availability": 99.8,
    "performance_score": 82,
    "issues": [
      {
        "severity": "warning",
        "type": "high_memory_usage",
        "component": "app-database",
        "message": "Memory usage above 90% for 10 minutes"
      }
    ]
  },
  "recent_activity": [
    {
      "timestamp": "2024-01-20T15:25:00Z",
      "type": "deployment",
      "resource": "web-app",
      "action": "scaled",
      "details": "Scaled from 3 to 5 replicas"
    },
    {
      "timestamp": "2024-01-20T15:20:00Z",
      "type": "alert",
      "resource": "database-app",
      "action": "triggered",
      "details": "High memory usage alert"
    }
  ]
}
""",
        type=Overview,
    ),
)

NODES = Example(
    name="Four nodes",
    response=msgspec.json.decode(
        """\
{
  "workspace_id": "ws-123",
  "total_nodes": 4,
  "nodes": [
    {
      "name": "worker-node-1",
      "status": "ready",
      "role": "worker",
      "version": "1.28.3",
      "capacity": {
        "cpu": "4",
        "memory": "16Gi",
        "storage": "100Gi",
        "pods": "110"
      },
      "allocatable": {
        "cpu": "3.8",
        "memory": "14.5Gi",
        "storage": "95Gi",
        "pods": "110"
      },
      "usage": {
        "cpu_percentage": 65.2,
        "memory_percentage": 78.5,
        "storage_percentage": 45.3,
        "pod_count": 23
      },
      "conditions": [
        {
          "type": "Ready",
          "status": "True",
          "last_transition": "2024-01-15T10:00:00Z"
        },
        {
          "type": "MemoryPressure",
          "status": "False",
          "last_transition": "2024-01-20T14:00:00Z"
        }
      ],
      "taints": [],
      "labels": {
        "node-type": "worker",
        "zone": "us-west-2a"
      }
    }
  ],
  "cluster_metrics": {
    "total_capacity": {
      "cpu": "16",
      "memory": "64Gi",
      "storage": "400Gi"
    },
    "total_usage": {
      "cpu_percentage": 58.7,
      "memory_percentage": 72.3,
      "storage_percentage": 38.9
    },
    "health_status": "healthy"
  }
}
""",
        type=Nodes,
    ),
)
