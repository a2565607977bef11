"""What the example of docs/security.md takes for granted: a user has jobs."""

from django.conf import settings
from django.db import models


class Job(models.Model):
    """A task that a user has sent."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="jobs")
    task_id = models.CharField(max_length=100)
