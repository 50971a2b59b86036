"""Judging responses: questions, rubrics, judges, people, and agreement."""
