"""Prompt methods behind one interface: CODA-Prompt, DualPrompt, L2P, APT."""

from prompt_distill.prompts.apt import APT
from prompt_distill.prompts.base import PromptMethod
from prompt_distill.prompts.coda import CodaPrompt
from prompt_distill.prompts.pools import L2P, DualPrompt

PROMPTS: dict[str, type[PromptMethod]] = {"CODAPrompt": CodaPrompt, "DualPrompt": DualPrompt, "L2P": L2P, "APT": APT}
"""--learner_name -> method."""

__all__ = ["APT", "PROMPTS", "CodaPrompt", "DualPrompt", "L2P", "PromptMethod"]
