"""Our models under lm-evaluation-harness (https://github.com/EleutherAI/lm-evaluation-harness): the extra `harness`, or
`pip install lm_eval`.

The harness asks a model three things: how likely a continuation is, how likely a whole text is, and what it writes. It
gets the numbers that model/evaluate itself computes from. A text begins as in training, behind end-of-text or the token
that its tokenizer has for that: what the harness's own class for transformers does on the exported model, for
continuations with add_bos_token=True alone.
"""

from collections import defaultdict
from typing import Any

from model.generate import complete, prompt_tokens
from model.likelihood import continuation_rows, target_nats, text_nats
from model.settings import Evaluate
from model.tokenizer import Tokenizer
from model.transformer import Transformer
from tasks.errors import UserError

try:
    from lm_eval.api.model import LM
except ImportError:                     # it is optional; `run` says so
    LM = object

NEW_TOKENS = 256                        # of an answer, where the task names no number


class HarnessModel(LM):
    """What lm_eval.simple_evaluate takes as `model`. A request is an object whose `args` are as said below."""

    def __init__(self, model: Transformer, tokenizer: Tokenizer, batch: int = 16, seed: int = 0):
        super().__init__()
        self.model, self.tokenizer, self.batch, self.seed = model, tokenizer, batch, seed

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        """Of each (text before, continuation): log p in nats, and whether each token is the likeliest."""
        rows = continuation_rows(self.tokenizer, [request.args[:2] for request in requests], self.model.config.context)
        nats, greedy = target_nats(self.model, rows, self.batch)
        return list(zip((-nats).tolist(), greedy.tolist(), strict=True))

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        """Of each (text,): log p in nats, in windows of the context."""
        return (-text_nats(self.model, self.tokenizer, [request.args[0] for request in requests], self.batch)).tolist()

    def generate_until(self, requests: list[Any]) -> list[str]:
        """Of each (prompt, settings) what the model writes before one of the texts `until`. Too long a prompt loses its
        beginning. Settings: until, max_gen_toks, do_sample, temperature, top_k, top_p."""
        alike = defaultdict(list)
        for number, request in enumerate(requests):
            alike[repr(sorted(request.args[1].items()))].append(number)
        texts = [""] * len(requests)
        for numbers in alike.values():
            given = requests[numbers[0]].args[1]
            until = given.get("until") or []
            count = int(given.get("max_gen_toks", NEW_TOKENS))
            room = self.model.config.context - count
            if room < 1:
                raise UserError(f"max_gen_toks {count} leaves no room for a prompt in the model's context of "
                                f"{self.model.config.context}: lower it in the task's generation_kwargs")
            prompts = [prompt_tokens(self.tokenizer, requests[number].args[0])[-room:] for number in numbers]
            greedy = not given.get("do_sample", float(given.get("temperature") or 0) > 0)
            found = complete(
                self.model, self.tokenizer, prompts, count, stop=[until] if isinstance(until, str) else until,
                batch=self.batch, seed=self.seed, temperature=0.0 if greedy else float(given.get("temperature", 1.0)),
                top_k=int(given.get("top_k") or 0), top_p=float(given.get("top_p") or 1.0))
            for number, text in zip(numbers, found, strict=True):
                texts[number] = text
        return texts


def run(model: Transformer, tokenizer: Tokenizer, settings: Evaluate) -> list[dict[str, Any]]:
    """Rows of results of the harness's tasks that settings.harness names, for each number of worked examples."""
    if LM is object:
        raise UserError("setting harness: lm-evaluation-harness is not installed; pip install lm_eval")
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=settings.harness_tasks or None)
    if unknown := [task for task in settings.harness if not manager.match_tasks([task])]:
        raise UserError(f"setting harness: the harness knows no task {unknown[0]!r}; name one of its own, or the "
                        "folder of yours in the setting harness_tasks")
    rows = []
    for few_shot in settings.few_shot:
        found = simple_evaluate(
            model=HarnessModel(model, tokenizer, settings.batch, settings.seed), tasks=list(settings.harness),
            num_fewshot=few_shot, limit=settings.limit or None, task_manager=manager, bootstrap_iters=0,
            random_seed=settings.seed, numpy_random_seed=settings.seed, torch_random_seed=settings.seed,
            fewshot_random_seed=settings.seed, log_samples=False)
        rows += result_rows(found, few_shot)
    return rows


def result_rows(found: dict[str, Any], few_shot: int) -> list[dict[str, Any]]:
    """The harness's results as rows; a metric behind a filter other than none is called metric,filter."""
    counts = found.get("n-samples", {})
    return [{"task": task, "metric": metric.removesuffix(",none"), "value": float(value), "domain": f"{few_shot}-shot",
             "few_shot": few_shot, "questions": counts.get(task, {}).get("effective"), "by": "lm-evaluation-harness"}
            for task, values in sorted(found["results"].items()) for metric, value in sorted(values.items())
            if "," in metric and "_stderr," not in metric and isinstance(value, int | float)]
