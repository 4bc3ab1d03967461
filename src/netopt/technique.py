"""What authors of techniques imported from here before `netopt.transform` was a package."""

from netopt.transform.technique import Keep, Proposal, Technique, inherit

__all__ = ["Keep", "Proposal", "Technique", "inherit"]
