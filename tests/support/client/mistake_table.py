"""The table of mistakes; see `support.client.mistakes`."""

from __future__ import annotations

from support.client import mistakes as make
from support.client.mistakes import BUY, DISTILL, PLAN, Mistake

CHECK = "check {data}"

DATA = (
    Mistake("no data set named", "plan", 2, ("no data set is named", "give --data")),
    Mistake("no such folder", "check {home}/nowhere", 3, ("nowhere is not a folder", "give the folder")),
    Mistake("an image for a folder", "check {data}/photo/cat/00000.png", 3, ("is not a folder", "give the folder")),
    Mistake(
        "one level too high, before a purchase",
        BUY,
        3,
        ("one level too high", "a photo of a photo", "give {data}/pacs"),
        make.one_too_high,
    ),
    Mistake("one level too high, to look", CHECK, 3, ("one level too high", "give {data}/pacs"), make.one_too_high),
    Mistake(
        "train and val for domains", PLAN, 3, ("train and val", "domains", "give {data}/train"), make.renamed_parts
    ),
    Mistake("train and test for classes", PLAN, 3, ("test and train", "classes", "give {data}/train"), make.flat_parts),
    Mistake(
        "a single class",
        BUY,
        3,
        ("one class only, 'cat'", "100 %", "add images of another class", "give the folder above"),
        make.removed("photo/dog", "sketch/dog"),
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
    Mistake("HEIC alone in a class", PLAN, 3, ("5 .heic", "convert them to JPEG", "without images"), make.heic_class),
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
        "a key that may not buy",
        BUY,
        5,
        ("lacks the scope `embed`", "nothing was bought", "ask the vendor for a key"),
        vendor=make.refuse(403, "forbidden", "/v1/embeddings"),
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
    Mistake("no terminal and no --yes", BUY.replace(" --yes", ""), 1, ("nothing was bought", "add --yes")),
    Mistake("--json without --yes", BUY.replace("--yes", "--json"), 2, ("--json asks nobody", "--yes")),
    Mistake("the answer is no", BUY.replace(" --yes", ""), 1, ("nothing was bought",), typed="n\n"),
)

OPTIONS = (
    Mistake("an unknown option", f"{PLAN} --viwes 3", 2, ("--viwes", "--views")),
    Mistake("an unknown command", "pln", 2, ("pln", "plan")),
    Mistake("a number out of range", f"{PLAN} --max-queries -1", 2, ("--max-queries -1", "greater than or equal to 0")),
    Mistake("a fraction of a view", f"{PLAN} --max-queries 1.5", 2, ("'1.5' is not a whole number",)),
    Mistake("an option that was removed", f"{PLAN} --rounds 2", 2, ("was removed in version 0.2.0", "leave it out")),
    Mistake("a selector without a bound", f"{PLAN} --select random", 2, ("--max-queries", "give both")),
    Mistake(
        "a template without a class", f"{PLAN} --prompt photo", 2, ("must hold {{class}}", "a photo of a {{class}}")
    ),
    Mistake(
        "fresh views from a vendor",
        f"{DISTILL} --online".replace("--views 1", ""),
        2,
        ("--online", "needs --local-teacher"),
    ),
    Mistake("a method for local teachers", f"{DISTILL} --method vl2v-sd", 2, ("vl2v-sd", "give --local-teacher")),
    Mistake("further steps below one", f"{DISTILL} --extend 0", 2, ("--extend", "from 1")),
    Mistake(
        "a typo in the file",
        "plan --config {home}/run.yaml",
        2,
        ("run.yaml: line 3", "'viewes'", "did you mean 'views'?"),
        make.written("run.yaml", "data: {root: x}\npurchase:\n  viewes: 3\n"),
    ),
    Mistake(
        "an option in another group",
        "plan --config {home}/run.yaml",
        2,
        ("line 2", "belongs to the group 'purchase'"),
        make.written("run.yaml", "training:\n  max_cost: 3\n"),
    ),
    Mistake(
        "a group that is none",
        "plan --config {home}/run.yaml",
        2,
        ("line 1", "'trainng'", "did you mean 'training'?"),
        make.written("run.yaml", "trainng:\n  seed: 3\n"),
    ),
    Mistake(
        "a wrong value in the file",
        "plan --config {home}/run.yaml",
        2,
        ("line 2", "'seed'", "'x'", "integer"),
        make.written("run.yaml", "training:\n  seed: x\n"),
    ),
    Mistake(
        "a file that is no YAML",
        "plan --config {home}/run.yaml",
        2,
        ("run.yaml, line 2", "groups and options"),
        make.written("run.yaml", "data: {\n: ["),
    ),
    Mistake(
        "a file that is not there", "plan --config {home}/run.yaml", 2, ("run.yaml", "No such file", "give a file")
    ),
    Mistake(
        "a sweep that is extended",
        "sweep --data {data} --views 1 --config {home}/run.yaml --yes",
        2,
        ("--extend", "leave it out"),
        make.written("run.yaml", "training: {extend: [3]}"),
    ),
)

RUNS = (
    Mistake(
        "a student that is none", f"{DISTILL} --student vit_smal", 2, ("timm has no model 'vit_smal'", "did you mean")
    ),
    Mistake(
        "weights that are not there",
        f"{DISTILL} --student resnet18 --student-weights {{home}}/w.safetensors",
        3,
        ("w.safetensors cannot be read", "safetensors file"),
    ),
    Mistake(
        "weights that do not fit",
        f"{DISTILL} --student test_vit --student-weights {{home}}/w.safetensors",
        3,
        ("w.safetensors",),
        make.written("w.safetensors", "junk"),
    ),
    Mistake(
        "a device that is not here",
        f"{DISTILL} --device gpu".replace("--device cpu ", ""),
        2,
        ("no device 'gpu' here", "use cpu"),
    ),
    Mistake("results into a file", DISTILL, 9, ("is a file", "another --out"), make.written("out", "")),
    Mistake(
        "results into a folder of something else",
        DISTILL,
        9,
        ("not empty", "another --out"),
        make.written("out/mine.txt", ""),
    ),
    Mistake(
        "results where another run is at work",
        DISTILL,
        9,
        ("another process is at work", "another folder"),
        make.locked_run,
    ),
    Mistake("results where another run has trained", DISTILL, 9, ("other settings", "another --out"), make.trained_run),
    Mistake(
        "a wrong target and a wrong folder at once",
        f"{DISTILL} --target-domain x",
        3,
        ("no domain 'x'", "not empty"),
        make.written("out/mine.txt", ""),
    ),
    Mistake("a full disk", DISTILL, 9, ("MB left", "make room"), make.full_disk),
    Mistake("a prediction by no student", "predict {data} {data}", 3, ("student.json",)),
    Mistake(
        "a broken file among others to predict",
        "predict {home}/student {data}/photo/cat",
        3,
        ("00000.png", "is not an image", "00001.png"),
        make.all_of(make.student, make.spoilt("photo/cat/00000.png")),
    ),
    Mistake("a score of no run", "evaluate {data}", 9, ("is not a run folder", "give the folder of")),
    Mistake(
        "a file that is no cache",
        "cache verify --cache {home}/junk.db",
        8,
        ("not a cache", "--cache"),
        make.written("junk.db", "junk " * 400),
    ),
    Mistake(
        "a cache that is not there, verified",
        "cache verify --cache {home}/no.db",
        8,
        ("there is no cache", "--cache"),
        cacheless=True,
    ),
    Mistake(
        "a cache that is not there, counted",
        "cache stats --cache {home}/no.db",
        8,
        ("there is no cache", "--cache"),
        cacheless=True,
    ),
    Mistake(
        "an audit with a wrong key",
        "audit",
        2,
        ("could not verify", "VL2V_API_KEY"),
        environment={make.KEY: "vl2v_no"},
    ),
    Mistake(
        "shapes over other shapes",
        "shapes {out}",
        3,
        ("holds shapes with", "choose another folder"),
        make.other_drawing,
    ),
)

MISTAKES = (*DATA, *IMAGES, *VENDOR, *OPTIONS, *RUNS)
