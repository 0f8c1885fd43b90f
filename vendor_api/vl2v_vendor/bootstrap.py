"""The only place that chooses implementations: settings in, services out."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from functools import partial
from math import inf
from pathlib import Path
from typing import TypeAlias

from vl2v_contract.identity import Modality
from vl2v_vendor.domain.encoder import Encoder, Tokenizer
from vl2v_vendor.domain.errors import ModelLoadFailed, ModelUnavailable
from vl2v_vendor.domain.ports import Accounts, Ledger
from vl2v_vendor.engine.models.hash_encoder import HashEncoder
from vl2v_vendor.engine.models.model_loading import load_model
from vl2v_vendor.engine.models.open_clip_files import ModelSpec, normalisation_lines
from vl2v_vendor.engine.models.tokenizer import OpenClipTokenizer, WordTokenizer, import_open_clip
from vl2v_vendor.engine.models.vector_checks import golden_path, read_parity
from vl2v_vendor.engine.process.model_process import ProcessEncoder
from vl2v_vendor.engine.queue.lanes import EncodingLanes, largest_input_bytes
from vl2v_vendor.host import GuardedClock, server_lock
from vl2v_vendor.images.image_decoding import PillowImageDecoder
from vl2v_vendor.images.preprocessing import choose_policy, preprocessing_of
from vl2v_vendor.keys.published_heads import HeadsFile, HeadsRecorder
from vl2v_vendor.keys.secrets import SecretSigner, VendorSecrets, load_or_create_secrets
from vl2v_vendor.ledger_sql.database import open_engine
from vl2v_vendor.ledger_sql.key_publication import SigningKeyWatch
from vl2v_vendor.ledger_sql.migrations import upgrade
from vl2v_vendor.ledger_sql.restoration import require_published
from vl2v_vendor.ledger_sql.sql_accounts import SqlAccounts
from vl2v_vendor.ledger_sql.sql_ledger import SqlLedger
from vl2v_vendor.service.administration import Administration, usual_currency
from vl2v_vendor.service.audit import Audit
from vl2v_vendor.service.decode_turns import DecodeTurns
from vl2v_vendor.service.preparation import Preparation
from vl2v_vendor.service.selling import RecomputeAllowance, Seller
from vl2v_vendor.service.services import Authenticator, Services
from vl2v_vendor.settings import Settings, SettingsError

Report: TypeAlias = Callable[[str, str], None]
"""Told a label and a text, for the operator, at each step of the start."""

TINY_TEACHER = "tiny-teacher"

_SECONDS_PER_DAY = 86_400
_STAFF_THREADS = 2
_HASH_BATCH_ITEMS = 32
_ASSETS = Path(__file__).parent / "assets"


@asynccontextmanager
async def open_services(
    settings: Settings, report: Report, *, before_model: Callable[[], None] = lambda: None
) -> AsyncIterator[Services]:
    """Open everything in order, cheapest refusals first, and close it in reverse.

    Args:
        settings: What to open.
        report: Told of each step.
        before_model: Called when all is open but the model, which may take minutes.

    Raises:
        VendorError: Something cannot be opened; the message names it and the remedy.
    """
    async with AsyncExitStack() as stack:
        engine = open_engine(settings.database)
        stack.callback(engine.dispose)
        is_sqlite = engine.dialect.name == "sqlite"
        clock = GuardedClock(settings.clock_bound_seconds if is_sqlite else inf)  # PostgreSQL's times are its own
        if is_sqlite:
            stack.enter_context(server_lock(Path(f"{engine.url.database}.lock")))
        secrets = load_or_create_secrets(settings.secrets_path)
        signer = secrets.signer()
        await asyncio.to_thread(upgrade, engine)
        ledger = SqlLedger(
            engine, signer=signer, clock=clock, retention_seconds=settings.retention_days * _SECONDS_PER_DAY
        )
        stack.push_async_callback(ledger.close)
        await ledger.start()
        stop = asyncio.Event()
        watch = asyncio.create_task(SigningKeyWatch(settings.secrets_path, secrets.pepper, signer, engine).run(stop))
        stack.push_async_callback(asyncio.gather, watch)
        stack.callback(stop.set)  # before that, in reverse
        heads = HeadsFile(settings.published_heads_path, ledger.ledger_id)
        await asyncio.to_thread(require_published, engine, heads)
        recorder = HeadsRecorder(heads)
        await recorder.start()
        stack.push_async_callback(recorder.close)
        signer.on_signed = recorder.note
        ahead = timedelta(microseconds=await ledger.newest_time() - clock.now())
        if ahead.total_seconds() > settings.clock_bound_seconds:
            report("warning", f"the newest entry is {ahead} ahead of this machine's clock; set that if it is wrong")
        report("ledger", engine.url.render_as_string(hide_password=True))
        before_model()
        model = await _open_model(settings, stack, report)
        info = model[0].info
        size = f"{info.embedding_dim} numbers per vector, {info.image_size} x {info.image_size} input"
        weights = f"{info.precision} on {info.device}, weights {info.weights_sha[:12]}"
        report("model", f"{info.id}, {size}, {weights}")
        accounts = SqlAccounts(engine, signer=signer, clock=clock)
        report("prices", await asyncio.to_thread(_ensure_prices, accounts, info.id, settings))
        yield _assemble(settings, stack, ledger, accounts, signer, clock, model, secrets)


def model_spec(settings: Settings) -> ModelSpec:
    """Return the open_clip model that the settings name; the packaged tiny teacher if they name none.

    Raises:
        ModelLoadFailed: The settings contradict each other, or the packaged model is missing.
    """
    choose = partial(
        ModelSpec,
        device=settings.device,
        precision=settings.precision,
        image_mean=settings.image_mean,
        image_std=settings.image_std,
        interpolation=settings.interpolation,
        policy=choose_policy(settings.pixel_policy, jpeg_draft=settings.jpeg_draft),
        compile=settings.torch_compile,
        int8_min_cosine=settings.int8_min_cosine,
        threads=settings.model_threads or _count_cores(),
    )
    if settings.model_config_file is not None:
        if settings.model is not None:
            raise ModelLoadFailed("give a model configuration file or a model name, not both")
        checkpoint = Path(settings.pretrained) if settings.pretrained else None
        name = settings.model_id or settings.model_config_file.stem
        return choose(model_id=name, config_file=settings.model_config_file, checkpoint_file=checkpoint)
    if settings.model is not None and settings.model != TINY_TEACHER:
        tags = [Path(tag).stem if Path(tag).is_file() else tag] if (tag := settings.pretrained) else []
        name = settings.model_id or "/".join([settings.model, *tags])  # a checkpoint file is named by its stem
        return choose(model_id=name, name=settings.model, pretrained=settings.pretrained)
    config_file, checkpoint = _ASSETS / f"{TINY_TEACHER}.json", _ASSETS / f"{TINY_TEACHER}.safetensors"
    if not config_file.is_file():
        raise ModelLoadFailed("the packaged tiny teacher is missing from this installation; name a model with --model")
    return choose(model_id=settings.model_id or TINY_TEACHER, config_file=config_file, checkpoint_file=checkpoint)


async def _open_model(settings: Settings, stack: AsyncExitStack, report: Report) -> tuple[Encoder, Tokenizer]:
    if settings.encoder == "hash":
        policy = choose_policy(settings.pixel_policy, jpeg_draft=settings.jpeg_draft)
        hash_encoder = HashEncoder(settings.hash_embedding_dim, settings.hash_image_size, policy=policy)
        return hash_encoder, WordTokenizer(hash_encoder.context_length)
    spec = model_spec(settings)
    report("loading", spec.model_id)
    golden_file = settings.golden_file or packaged_golden(spec)
    load = partial(load_model, spec, golden_folder=settings.golden_folder, golden_file=golden_file)
    encoder = ProcessEncoder(load, max_batch_items=settings.max_batch_items, load_seconds=settings.max_load_seconds)
    stack.push_async_callback(encoder.close)
    await asyncio.gather(encoder.start(), asyncio.to_thread(import_open_clip))
    info, largest = encoder.info, encoder.batch_items
    for label, text in normalisation_lines(spec, info, own=not _is_packaged(spec)).items():
        report(label, text)
    report(
        "batches",
        f"up to {largest['image']} images or {largest['text']} texts, "
        f"stuck after {encoder.stuck_seconds:.1f} seconds without a sign of life",
    )
    report("golden", f"vectors as in {golden_file or golden_path(settings.golden_folder, info)}")
    if info.precision == "int8":
        report("parity", read_parity(settings.golden_folder, info))
    return encoder, await asyncio.to_thread(OpenClipTokenizer, spec, context_length=info.context_length)


def packaged_golden(spec: ModelSpec) -> Path | None:
    """Return the golden vectors that come with the tiny teacher; they hold for its own normalisation only."""
    is_its_own = _is_packaged(spec) and spec.image_mean is None and spec.image_std is None
    return _ASSETS / f"{TINY_TEACHER}.golden.json" if is_its_own else None


def _is_packaged(spec: ModelSpec) -> bool:
    return spec.config_file == _ASSETS / f"{TINY_TEACHER}.json"


def _ensure_prices(accounts: SqlAccounts, model_id: str, settings: Settings) -> str:
    """Put the model on the price list; a price once set stays, unless the settings name that very one."""
    named, in_force = settings.model_fields_set, {price.modality: price for price in accounts.prices(model_id)}
    configured: dict[Modality, int] = {"image": settings.image_price_micro, "text": settings.text_price_micro}
    wanted: dict[Modality, int] = {}
    for modality, micro in configured.items():
        current = in_force.get(modality)
        if current is None or f"{modality}_price_micro" in named:
            wanted[modality] = micro
        elif "currency" in named:
            wanted[modality] = current.unit_price_micro
    if wanted:
        currency = settings.currency if "currency" in named else usual_currency(accounts, settings.currency)
        accounts.ensure_prices(model_id, wanted, currency)
    in_force = {price.modality: price for price in accounts.prices(model_id)}
    image, text = in_force["image"], in_force["text"]
    return (
        f"{image.unit_price_micro} micro-{image.currency} per image, "
        f"{text.unit_price_micro} micro-{text.currency} per text"
    )


def _assemble(
    settings: Settings,
    stack: AsyncExitStack,
    ledger: Ledger,
    accounts: Accounts,
    signer: SecretSigner,
    clock: GuardedClock,
    model: tuple[Encoder, Tokenizer],
    secrets: VendorSecrets,
) -> Services:
    """Build the use cases over what was opened, with the pool and the lanes that they run on."""
    (encoder, tokenizer), limits = model, settings.limits
    threads = max(2, _count_cores())  # a large image never takes the last one
    decoding = stack.enter_context(ThreadPoolExecutor(threads, thread_name_prefix="decode"))
    staff = stack.enter_context(ThreadPoolExecutor(_STAFF_THREADS, thread_name_prefix="staff"))
    decoder = PillowImageDecoder(
        preprocessing_of(encoder.info), max_item_bytes=limits.max_item_bytes, max_pixels=limits.max_pixels
    )
    turns = DecodeTurns(decoding, threads, settings.max_decoding_bytes)
    preparation = Preparation(decoder, tokenizer, limits, turns, in_flight=2 * threads)
    lanes = _open_lanes(settings, encoder)
    lanes.start()
    stack.push_async_callback(lanes.close)
    audit = Audit(ledger, signer, clock)

    async def check_model() -> None:
        if not encoder.ready:
            raise ModelUnavailable("the model process is being restarted")

    return Services(
        ledger=ledger,
        encoder=encoder,
        lanes=lanes,
        limits=limits,
        authenticator=Authenticator(ledger, clock),
        seller=Seller(
            ledger=ledger,
            signer=signer,
            encoder=encoder,
            lanes=lanes,
            preparation=preparation,
            recomputes=RecomputeAllowance(clock, settings.recompute_items_per_minute),
            limits=limits,
            pepper=secrets.pepper,
        ),
        audit=audit,
        administration=Administration(accounts, audit, staff, currency=settings.currency),
        page_secret=secrets.page_secret,
        readiness={"model": check_model, "ledger": ledger.ping, "clock": clock.check},
    )


def _open_lanes(settings: Settings, encoder: Encoder) -> EncodingLanes:
    """Open the lanes to the model, bounded; refuses bounds that no full request of images could ever pass."""
    needed_bytes = settings.max_items * largest_input_bytes(encoder.info)["image"]
    if settings.max_queued_bytes < needed_bytes:
        raise SettingsError(
            f"max_queued_bytes: must be at least {needed_bytes} for this model, "
            f"or a full request of {settings.max_items} images could never be served; lower max_items otherwise"
        )
    measured = encoder.batch_items if isinstance(encoder, ProcessEncoder) else None
    return EncodingLanes(
        encoder,
        max_batch_items=measured or settings.max_batch_items or _HASH_BATCH_ITEMS,
        max_queued_items=settings.max_queued_items,
        max_queued_bytes=settings.max_queued_bytes,
        max_wait_seconds=settings.max_wait_seconds,
    )


def _count_cores() -> int:
    """Count the cores that this process may run on: `taskset` or a container may leave it few of the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
