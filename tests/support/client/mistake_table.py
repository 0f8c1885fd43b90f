"""The table of mistakes, and its rows on data, images and vendors; see `support.client.mistakes`."""

from __future__ import annotations

from support.client import mistakes as make
from support.client.mistake_runs import OPTIONS, RUNS
from support.client.mistakes import BUY, DISTILL, PLAN, Failure, Mistake

CHECK = "check {data}"

DATA = (
    Mistake("no data set named", "plan", 2, ("no data set is named", "give --data")),
    Mistake("no such folder", "check {home}/nowhere", 3, ("nowhere is not a folder", "give the folder")),
    Mistake("a folder that is no option", "plan {data}", 2, ("Unused Tokens", "such as --data for a data set")),
    Mistake("no such file", "plan --config {home}/none.yaml", 2, ("none.yaml cannot be read (No such file",)),
    Mistake("an image for a folder", "check {data}/photo/cat/00000.png", 3, ("is not a folder", "give the folder")),
    Mistake(
        "one level too high, before a purchase",
        BUY,
        3,
        ("one level too high", "a photo of a photo", "give {data}/pacs"),
        make.one_too_high,
        failure=Failure.TOO_HIGH,
    ),
    Mistake(
        "one level too high, to look",
        CHECK,
        3,
        ("one level too high", "give {data}/pacs"),
        make.one_too_high,
        failure=Failure.TOO_HIGH,
    ),
    Mistake(
        "train and val for domains",
        PLAN,
        3,
        ("train and val", "domains", "give {data}/train"),
        make.renamed_parts,
        failure=Failure.PARTS,
    ),
    Mistake(
        "train and test for classes",
        PLAN,
        3,
        ("test and train", "classes", "give {data}/train"),
        make.flat_parts,
        failure=Failure.PARTS,
    ),
    Mistake(
        "a single class",
        BUY,
        3,
        ("one class only, 'cat'", "100 %", "add images of another class", "give the folder above"),
        make.removed("photo/dog", "sketch/dog"),
        failure=Failure.ONE_CLASS,
    ),
    Mistake("one level too low", "check {data}/photo/cat", 3, ("no images in class folders", "give the folder above")),
    Mistake("a class without images", PLAN, 3, ("without images", "add some or remove"), make.emptied("photo/cat")),
    Mistake(
        "domains with different classes",
        PLAN,
        3,
        ("lacks the classes cat", "the same class folders"),
        make.removed("photo/cat"),
    ),
    Mistake("two layouts in one folder", PLAN, 3, ("mixes two layouts", "throughout"), make.moved("photo/cat", "cat")),
    Mistake("an unknown target", f"{PLAN} --target-domain sketches", 3, ("'sketches'", "it has: photo, sketch")),
    Mistake(
        "nothing left to train on",
        f"{PLAN} --target-domain photo",
        3,
        ("one domain only", "leave the target out"),
        make.removed("sketch"),
    ),
    Mistake(
        "two classes of one name",
        CHECK,
        3,
        ("the same prompts", "rename one"),
        make.all_of(
            make.moved("photo/cat", "photo/big_dog"),
            make.moved("sketch/cat", "sketch/big_dog"),
            make.moved("photo/dog", "photo/big dog"),
            make.moved("sketch/dog", "sketch/big dog"),
        ),
    ),
    Mistake(
        "a class name with a control character",
        PLAN,
        3,
        ("control characters", "rename them"),
        make.all_of(make.moved("photo/cat", "photo/c\x1bat"), make.moved("sketch/cat", "sketch/c\x1bat")),
    ),
)

IMAGES = (
    Mistake(
        "two broken images",
        PLAN,
        3,
        ("of 20 images cannot be used", "cat/00000.png is not an image", "dog/00003.png is not", "--skip-broken"),
        make.spoilt("photo/cat/00000.png", "sketch/dog/00003.png"),
        failure=Failure.ONE_BY_ONE,
    ),
    Mistake(
        "an empty image",
        CHECK,
        3,
        ("is empty (0 bytes)", "copy it again"),
        make.spoilt("photo/cat/00000.png", content=b""),
    ),
    Mistake("a cut image", CHECK, 3, ("broken image", "copy it again"), make.cut("photo/cat/00000.png")),
    Mistake(
        "broken images, only texts bought", BUY.replace("views 1", "views 0"), 3, ("5 of 20 images",), make.spoilt_class
    ),
    Mistake("no readable image left", f"{PLAN} --skip-broken", 3, ("no readable image", "add some"), make.spoilt_class),
    Mistake(
        "HEIC alone in a class",
        PLAN,
        3,
        ("5 .heic", "convert them to JPEG", "without images"),
        make.heic_class,
        failure=Failure.HEIC,
    ),
    Mistake(
        "HEIC among others",
        CHECK,
        0,
        ("1 .heic: photo/cat/phone.HEIC", "are ignored"),
        make.heic_beside,
        failure=Failure.HEIC,
    ),
    Mistake(
        "HEIC among others, planned",
        PLAN,
        0,
        ("1 picture is ignored", "1 .heic", "convert them to JPEG"),
        make.heic_beside,
        failure=Failure.HEIC,
    ),
    Mistake(
        "HEIC among others, distilled with a wrong key",
        DISTILL,
        5,
        ("1 picture is ignored", "1 .heic", "convert them to JPEG"),
        make.heic_beside,
        failure=Failure.HEIC,
        environment={make.KEY: "vl2v_no"},
        leaves=frozenset({"out/.lock", "out/config.json", "out/purchase.json"}),
    ),
    Mistake("links to nothing", BUY, 3, ("cannot be read", "check that it exists"), make.dangling),
)

VENDOR = (
    Mistake("no key", BUY, 5, ("API key", "set VL2V_API_KEY"), environment={make.KEY: None}),
    Mistake("a wrong key", BUY, 5, ("refused the API key", "VL2V_API_KEY"), environment={make.KEY: "vl2v_no"}),
    Mistake(
        "a key that is none",
        PLAN,
        5,
        ("does not start with 'vl2v_'", "copy it again"),
        environment={make.KEY: "sk-1"},
    ),
    Mistake(
        "a key that may not buy, before anybody is asked",
        BUY.replace(" --yes", ""),
        5,
        ("lacks the scope `embed`", "nothing was bought", "ask the vendor for a key"),
        vendor=make.refuse(403, "forbidden", "/v1/embeddings"),
        typed="n\n",
        failure=Failure.LATE_SCOPE,
    ),
    Mistake(
        "nobody at the address",
        f"{PLAN} --vendor-url http://127.0.0.1:9",
        4,
        ("no vendor answers", "is it running at --vendor-url"),
    ),
    Mistake(
        "https where plain HTTP is spoken",
        f"{PLAN} --vendor-url {{tls}}",
        4,
        ("{url} answers", "give that as --vendor-url"),
        failure=Failure.TLS,
    ),
    Mistake(
        "an address that ends in /v1, which is understood",
        f"{PLAN} --vendor-url {{url}}/v1",
        0,
        ("to buy",),
        failure=Failure.V1,
    ),
    Mistake("an address without http", f"{PLAN} --vendor-url vendor:8000", 2, ("'vendor:8000'", "http://host:port")),
    Mistake("another web server", PLAN, 4, ("is not a VL2V vendor", "check --vendor-url"), vendor=make.foreign),
    Mistake("a model that is not sold", f"{PLAN} --model vit-x", 4, ("refused",)),
    Mistake(
        "above the cap on queries", f"{BUY} --max-queries 3", 6, ("--max-queries allows 3", "raise it to", "--partial")
    ),
    Mistake("above the cap on money", f"{BUY} --max-cost 0.0001", 6, ("--max-cost allows 0.0001 EUR", "raise it to")),
    Mistake("a cap that is no money", f"{BUY} --max-cost free", 2, ("'free' is not a number",)),
    Mistake("above the account's budget", BUY, 6, ("3 left", "top-up"), vendor=make.poor),
    Mistake(
        "no terminal and no --yes",
        BUY.replace(" --yes", ""),
        1,
        ("nothing was bought", "add --yes"),
        failure=Failure.NOBODY_TO_ASK,
        alone=True,
    ),
    Mistake("--json without --yes", BUY.replace("--yes", "--json"), 2, ("--json asks no question", "--yes")),
    Mistake("the answer is no", BUY.replace(" --yes", ""), 1, ("nothing was bought",), typed="n\n"),
)

MISTAKES = (*DATA, *IMAGES, *VENDOR, *OPTIONS, *RUNS)
