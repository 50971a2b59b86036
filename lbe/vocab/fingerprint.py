"""What two tokenizers are told apart by."""

import hashlib
import json


def digest(facts: dict) -> str:
  """sha256 of facts that JSON can hold, whatever the order of their names."""
  text = json.dumps(facts, ensure_ascii=True, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()
