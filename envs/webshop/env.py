"""`steppo/WebShop-v0`: buy what an instruction asks for, in the built-in shop or the official one.

env = gymnasium.make("steppo/WebShop-v0")
observation, info = env.reset(seed=0)
observation, reward, terminated, truncated, info = env.step("<action>search[slim fit hoodie]</action>")
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack

from steppo_gym.actions import Invalid, format_thought
from steppo_gym.env import TextEnv
from steppo_gym.envs.webshop import pages, render
from steppo_gym.envs.webshop.actions import (
    Click,
    Ignored,
    Search,
    command_text,
    format_command,
    instruction_search,
    is_sayable,
    parse_action,
    tool_schemas,
)
from steppo_gym.envs.webshop.built_in.generate import SPLITS, Split
from steppo_gym.envs.webshop.expert import expert_action
from steppo_gym.envs.webshop.expert_view import best_choice, expert_page, has_looked, wanted
from steppo_gym.envs.webshop.nouns import NOUN_SOURCES, NounSource, noun_tagger
from steppo_gym.envs.webshop.reader import overlook, reading_action, slip, thought
from steppo_gym.envs.webshop.renaming import renamed
from steppo_gym.envs.webshop.render import OBSERVATION_MODES, ObservationMode
from steppo_gym.envs.webshop.reward import PROTOCOLS, Score, ShopProtocol, is_success, purchase_reward, score
from steppo_gym.envs.webshop.session import PAGE_SIZE, SEARCH_BUTTON, Session, click, impossible, page, search
from steppo_gym.envs.webshop.store.catalogue import Goal
from steppo_gym.envs.webshop.store.goals import SPLIT_RULES, SplitRule
from steppo_gym.envs.webshop.store.shop import GOAL_KINDS, GoalKind, open_shop
from steppo_gym.envs.webshop.task_ids import TaskIds, goal_number
from steppo_gym.keywords import (
    CommonArguments,
    check_choice,
    check_count,
    check_place,
    check_split,
)
from steppo_gym.protocol import named_protocol
from steppo_gym.quoting import one_line
from steppo_gym.snapshot import bad_snapshot, canonical_json, restored, state_digest
from steppo_gym.storage.file_stamps import stamps_text
from steppo_gym.transition import NO_ACTION, Transition

EXPERTS = ("careful", "clumsy", "hasty", "heedless")
_SHOWN_CHARS = 300


class _TaskState(TypedDict):
    session: Session
    episode_seed: int
    instruction: str
    """Of the goal: another shop has another one under the same id."""


class WebShopEnv(TextEnv):
    """WebShop (arXiv:2207.01206) with one text response as the action.

    Args:
        split: "train", "validation" or "test".
        data: None for the built-in shop of 1,000 products, or a folder with the official files.
        protocol: "steppo" (15 steps, 10 for a full score), "official" (the score itself) or "verl-agent".
        goals: "human", or "synthetic" for the instructions made from attributes.
        split_rule: places in the officially shuffled order: "official", or "first-500" (500 to test, the others to
            train: the places of StepPO and verl-agent, whose orders are others). None splits by what is wanted, and
            the full official set officially.
        observation_mode: "text" or "text_rich", which marks what can be clicked and what was.
        results_per_page: officially 10; with fewer, pages are short enough for small policies.
        nouns: who finds the nouns of names: "spacy" as officially, "words", or "auto" for spaCy where it is installed.
        common: see `TextEnv`. The expert "clumsy" reads and slips now and then, "hasty" and "heedless" err.
            `invalid_action_reward` is of a response whose tag or call is missing or malformed; a command in good form
            that the shop ignores costs a step and nothing else.

    Raises:
        ValueError: an argument outside its range, or a split without goals.
        DataError: no official files in `data`.
    """

    protocol: ShopProtocol  # type: ignore[assignment] - set once

    def __init__(
        self,
        *,
        split: Split = "train",
        data: str | Path | None = None,
        protocol: str = "steppo",
        goals: GoalKind = "human",
        split_rule: SplitRule | None = None,
        observation_mode: ObservationMode = "text",
        results_per_page: int = PAGE_SIZE,
        nouns: NounSource = "auto",
        **common: Unpack[CommonArguments],
    ) -> None:
        check_place("data", data)
        check_split(split, SPLITS)
        check_choice("goals", goals, GOAL_KINDS)
        check_choice("split_rule", split_rule, (None, *SPLIT_RULES))
        check_choice("observation_mode", observation_mode, OBSERVATION_MODES)
        check_choice("nouns", nouns, NOUN_SOURCES)
        check_count("results_per_page", results_per_page)
        super().__init__(named_protocol(PROTOCOLS, protocol), experts=EXPERTS, **common)
        self.shop = open_shop(data)
        self.text_version = stamps_text(self.shop.stamps)
        self._asins = self.shop.asins() if data is None else None
        self.goals: GoalKind = goals
        self.task_ids = TaskIds(goals, self.shop.goal_numbers(goals, split, split_rule))
        if not self.task_ids:
            raise ValueError(f"There are no {goals} goals in the split {split!r} of data={data!r}.")
        self.observation_mode: ObservationMode = observation_mode
        self.tagger = noun_tagger(nouns)
        self.results_per_page = int(results_per_page)
        self.goal: Goal
        """What is wanted in this episode; set by `reset`."""
        self._session: Session
        self._page: str
        self._clicks: list[str]
        self._score: Score | None
        self._best: dict[str, tuple[dict[str, str], float]]
        self._episode_seed = 0

    @property
    def system_prompt(self) -> str:
        """What the agent is told once, before the first observation."""
        return render.system_prompt(self.action_format)

    @property
    def tools(self) -> list[dict[str, Any]]:
        """The JSON schema of `env_step`, empty in the tag format."""
        return tool_schemas() if self.action_format == "tool_call" else []

    def expert_response(self) -> str:
        """What the expert writes in the current state."""
        self._require_episode("ask the expert about")
        self.expert_slip = False
        page = expert_page(self._session, self.shop)
        looked = has_looked([exchange.action for exchange in self.history], self._session.asin)
        steps_left = self.max_steps - self.num_steps
        opened, goal = self._session.visited, wanted(self.goal)
        if self.expert in ("clumsy", "heedless"):
            action = reading_action(goal, page, opened=opened, looked=looked, steps_left=steps_left)
            if self.expert == "heedless":
                wrong = overlook(goal, page, seed=self._episode_seed, step=self.num_steps)
            else:
                wrong = slip(page, action, seed=self._episode_seed, step=self.num_steps)
                self.expert_slip = wrong is not None
            said = "" if wrong else thought(goal, page, looked=looked)
            return format_thought(said) + format_command(wrong or action, self.action_format)
        enough = self._best_choice(self.goal.asin)[1]
        action = expert_action(
            goal,
            page,
            opened=opened,
            looked=looked,
            steps_left=steps_left,
            fits=lambda asin: self._best_choice(asin)[1] >= enough,
            picks=lambda asin: self._best_choice(asin)[0],
            seed=self._episode_seed if self.expert == "hasty" else None,
        )
        return format_command(action, self.action_format)

    def render(self) -> str | None:  # type: ignore[override]
        """See `TextEnv.render`. A rebuilt prompt has the instruction beside the pages, so it is put before them."""
        shown = super().render()
        return f"Instruction: {self.goal.instruction}\n{shown}" if shown and self.context == "rebuilt" else shown

    def task_content(self, task_id: str) -> bytes:
        """The goal under the official names of its parts, as JSON."""
        self.require_task(task_id)
        goal = self.shop.goal(self.goals, goal_number(task_id))
        content = {
            "asin": goal.asin,
            "instruction_text": goal.instruction,
            "attributes": goal.attributes,
            "goal_options": goal.options,
            "price_upper": goal.price_upper,
        }
        return canonical_json(content)

    def retold(self, texts: Sequence[str], rng: random.Random) -> list[str]:
        """The texts of an episode in another shop; see `steppo_gym.envs.webshop.renaming`.

        Raises:
            NotImplementedError: the official shop, whose words are not known to stand for each other.
        """
        if self._asins is None:
            raise NotImplementedError("Episodes of the built-in shop alone can be told anew, got data.")
        return renamed(texts, rng, asins=self._asins)

    def _start(self, task_id: str) -> str:
        self._enter(task_id, Session(page_size=self.results_per_page))
        self._episode_seed = self._draw_seed()
        if self.context == "rebuilt":
            return self._page
        return render.page_text(page(self._session, self.goal.instruction, self.shop), self.observation_mode)

    def _apply(self, response: str) -> Transition:
        rules = self.protocol
        action = parse_action(response, self.action_format, folds_case=rules.folds_case, first_tag=rules.first_tag)
        match action:
            case Invalid(reason):
                return self._nothing(NO_ACTION, reason, rules.invalid_action_reward)
            case Ignored(reason):
                return self._nothing(NO_ACTION, reason)
            case Search(keywords):
                after = search(self._session, keywords, self.shop, self._rng())
            case Click(label):
                after = click(self._session, label, self.shop, self._rng())
                if after is None:
                    shown = one_line(command_text(action), _SHOWN_CHARS)
                    reason = f"There is nothing of the label {one_line(label)!r} to click on this page."
                    return self._nothing(f"{shown} (not there)", reason)
        feedback = self._move_to(after, action)
        shown = one_line(command_text(action), _SHOWN_CHARS)
        if self._score is None:
            return Transition(feedback, shown)
        return Transition(feedback, shown, purchase_reward(self.protocol, self._score.total), terminated=True)

    def _nothing(self, action: str, reason: str, reward: float = 0.0) -> Transition:
        """What changes nothing. Only a missing or malformed tag or call is charged for, as in both recipes."""
        feedback = render.invalid_feedback(reason, self.action_format)
        return Transition(feedback, action, reward, invalid_action=reason)

    def _rng(self) -> random.Random:
        """Draws for a search for random products; part of the snapshot by what it is seeded with."""
        return random.Random(f"{self._episode_seed} {self.num_steps}")

    def _enter(self, task_id: str, session: Session) -> None:
        self.goal = self.shop.goal(self.goals, goal_number(task_id))
        self._best = {}
        self._show(session)

    def _show(self, session: Session) -> None:
        """Go to a page, where buying is scored."""
        self._session = session
        nodes = page(session, self.goal.instruction, self.shop)
        self._page = render.page_text(pages.without_instruction(nodes), self.observation_mode).strip("\n")
        self._clicks = [
            command
            for label in pages.clickables(nodes)
            if label != SEARCH_BUTTON and is_sayable(command := command_text(Click(label)))
        ]
        self._score = self._score_of(session.asin, dict(session.chosen)) if session.page == "done" else None

    def _move_to(self, after: Session, action: Search | Click) -> str:
        """Go to the page that a valid action leads to; what the agent reads."""
        before = self._session
        self._show(after)
        # Of all clicks on a product's page, those on an option alone stay there.
        if self.context == "append" and isinstance(action, Click) and before.page == after.page == "item":
            return render.clicked_feedback(action.label)
        return self._page

    def _observation(self, feedback: str) -> str:
        if self.context == "append":
            return feedback
        return render.rebuilt_prompt(
            instruction=self.goal.instruction,
            history=self._shown_history(),
            history_chars=self.protocol.history_chars,
            page=self._page,
            chosen=dict(self._session.chosen) if self._session.page != "done" else {},
            actions=[render.SEARCH_FORM] if self._session.page == "index" else self._clicks,
            problem="" if feedback == self._page else feedback,
            action_format=self.action_format,
        )

    def _admissible_actions(self) -> tuple[str, ...]:
        """Clicks; on the page with the search bar, where anything can be searched for, a search for the instruction."""
        if self._session.page == "index":
            return (command_text(instruction_search(self.goal.instruction)),)
        return tuple(self._clicks)

    def _state_key(self) -> str:
        return state_digest(self.task_id, *self._session.hidden_state())

    def _success(self) -> bool:
        return self._score is not None and is_success(self._score.total)

    def _metrics(self) -> dict[str, float]:
        """`task_score` (the official reward) and its parts, 0 until bought; and whether spaCy found the nouns."""
        bought = self._score
        return {
            "task_score": bought.total if bought else 0.0,
            "bought": float(bought is not None),
            "r_type": bought.r_type if bought else 0.0,
            "r_att": bought.r_att if bought else 0.0,
            # Where no options are wanted, all of them are found.
            "r_option": (1.0 if bought.r_option is None else bought.r_option) if bought else 0.0,
            "r_price": float(bought.r_price) if bought else 0.0,
            "nouns_from_spacy": float(self.tagger.name.startswith("spacy")),
        }

    def _get_task_state(self) -> dict[str, Any]:
        return {
            "session": dataclasses.asdict(self._session),
            "episode_seed": self._episode_seed,
            "instruction": self.goal.instruction,
        }

    def _set_task_state(self, state: object) -> None:
        saved = restored(state, _TaskState)
        session, instruction = saved["session"], self.shop.goal(self.goals, goal_number(self.task_id)).instruction
        if saved["instruction"] != instruction:
            found = one_line(saved["instruction"])
            raise bad_snapshot(f"expected the instruction {one_line(instruction)!r} in this shop, found {found!r}")
        if session.page_size != self.results_per_page:
            raise bad_snapshot(f"expected {self.results_per_page} results per page, found {session.page_size}")
        if reason := impossible(session, self.shop):
            raise bad_snapshot(reason)
        self._check_end(session.page == "done")
        self._enter(self.task_id, session)
        self._episode_seed = saved["episode_seed"]

    def _score_of(self, asin: str, chosen: Mapping[str, str]) -> Score:
        return score(
            self.goal, product=self.shop.product(asin), chosen=chosen, price=self.shop.price(asin), tagger=self.tagger
        )

    def _best_choice(self, asin: str) -> tuple[dict[str, str], float]:
        if asin not in self._best:
            self._best[asin] = best_choice(self.shop.product(asin), lambda chosen: self._score_of(asin, chosen).total)
        return self._best[asin]
