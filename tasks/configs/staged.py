"""Questions with short answers, and answers in four stages (LLaVA-CoT, arXiv 2411.10440)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from tasks.stage.config import StageConfig


class QuestionConfig(StageConfig):
    """Where questions come from; their true answers are read by evaluation and by the verification gate only."""

    section: ClassVar[str] = "questions"
    model_config = ConfigDict(title="Questions")
    train: str = Field(
        "",
        description="JSON Lines file about training images (image_id, question, answer; or LLaVA's image and conversations, "
        "of one turn or several); empty: made from annotated boxes",
    )
    benchmark: str = Field("", description="the same about the benchmark's images")
    kinds: tuple[Literal["what", "how_many", "where"], ...] = Field(
        ("what", "how_many", "where"), min_length=1, description="of questions made from boxes"
    )
    per_image: int = Field(1, ge=1, le=20, description="questions an image, where they are made")
    conversation: bool = Field(
        False, description="made questions about one image are turns of a conversation, which is learned as one example"
    )


class SelfTeacher(StageConfig):
    """The policy itself, by the profile's search."""

    model_config = ConfigDict(title="The policy itself")
    kind: Literal["self"] = Field("self", description="the policy itself, by the profile's search")


class EndpointTeacher(StageConfig):
    """A model behind an OpenAI-compatible endpoint, which receives image, question and answer (LLaVA-CoT section 3.1)."""

    model_config = ConfigDict(title="OpenAI-compatible endpoint")
    kind: Literal["endpoint"] = Field("endpoint", description="a model behind an OpenAI-compatible endpoint")
    url: str = Field(min_length=1, description="for example http://localhost:8000/v1")
    model: str = Field(min_length=1, description="its name at the endpoint")
    key_variable: str = Field("OPENAI_API_KEY", description="environment variable with the key, if it is set")
    parallel: int = Field(8, ge=1, le=256, description="requests at once", json_schema_extra={"semantic": False})
    timeout: float = Field(120.0, gt=0, description="seconds a request", json_schema_extra={"semantic": False})


class StagedConfig(StageConfig):
    """Answers in four tagged stages: who writes them, and which ones are learned."""

    section: ClassVar[str] = "staged"
    model_config = ConfigDict(title="Staged answers")
    instruction: str = Field(
        "Answer in four stages.",
        description="added to a question where the policy is to answer in stages; may be empty",
    )
    teacher: Annotated[SelfTeacher | EndpointTeacher, Field(discriminator="kind")] = Field(
        SelfTeacher(), description="who writes staged answers; kind: self or endpoint (url, model)"
    )
    verify: Literal["reference", "agreement", "judge"] = Field(
        "agreement",
        description="which are learned; reference: those that conclude with the data set's answer (the paper); agreement: "
        "those that conclude as most of the policy's own answers do, no annotation is read; judge: those that the teacher "
        "accepts",
    )
    min_agreement: float = Field(0.5, ge=0, le=1, description="share of the own answers that must agree")
    attempts: int = Field(
        2, ge=1, le=20, description="a question whose answers were all refused is left out after these"
    )
