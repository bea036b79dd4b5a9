"""From where each reward gets its weights by default, and by what it knows them."""

import json
from shutil import copyfile

import huggingface_hub
import pytest
import torch
import transformers
from huggingface_hub import constants
from huggingface_hub.errors import LocalEntryNotFoundError
from huggingface_hub.utils import are_progress_bars_disabled

from rlr.io.hub import Published
from rlr.rewards import Aesthetic, CLIPScore, HPSv2, HPSVersion, ImageReward, PickScore
from rlr.rewards.networks.aesthetic import HEADS
from tests.rewards.authors import aes_files, hpsv2, imagereward, imagereward_files
from tests.rewards.folder import FOLDER
from tests.rewards.test_aesthetic import unfolded
from tests.rewards.vectors import FIXTURES

LAION, OPENAI = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K", "openai/clip-vit-large-patch14"
WORDS = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "special_tokens_map.json")
MODEL = ("config.json", "model.safetensors")


class Hub:
    """A hub of some repositories, which writes down what is asked for.

    Args:
        cache: Where a client keeps what it was given.
    """

    def __init__(self, cache):
        self.cache, self.files, self.asked = cache, {}, []

    def hold(self, repository, *paths):
        self.files |= {(repository, path.name): path for path in paths}

    def download(self, repository, name, **options):
        assert not are_progress_bars_disabled()
        assert options.get("tqdm_class") is None
        self.asked.append((repository, name))
        if (repository, name) not in self.files:
            raise LocalEntryNotFoundError(f"there is no {name} in {repository}")
        home = self.cache / f"models--{repository.replace('/', '--')}"
        target = home / "snapshots" / ("0" * 40) / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (home / "refs").mkdir(exist_ok=True)
        (home / "refs" / "main").write_text("0" * 40)
        copyfile(self.files[repository, name], target)
        return str(target)

    def snapshot(self, repository, **options):
        for name in options["allow_patterns"]:
            if (repository, name) in self.files:
                self.download(repository, name, tqdm_class=options.get("tqdm_class"))

    def given(self):
        """What was asked for and is there, each once and in order."""
        return list(dict.fromkeys(asked for asked in self.asked if asked in self.files))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    hub = Hub(tmp_path / "cache")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(hub.cache))
    # so that nothing but files is asked for
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for module in (huggingface_hub, transformers.utils.hub):
        monkeypatch.setattr(module, "hf_hub_download", hub.download)
    monkeypatch.setattr(transformers.utils.hub, "snapshot_download", hub.snapshot)
    return hub


@pytest.mark.parametrize(
    ("version", "name"),
    [("v2_0", "HPS_v2_compressed.pt"), ("v2_1", "HPS_v2.1_compressed.pt"), (None, "HPS_v2.1_compressed.pt")],
)
def test_hpsv2(hub, tmp_path, version, name):
    given = hpsv2()
    torch.save({"state_dict": given.clip.state_dict()}, tmp_path / name)
    hub.hold("xswu/HPSv2", tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"was not found in 'nobody/HPSv2'"):
        HPSv2("nobody/HPSv2")
    hub.asked.clear()
    options = {} if version is None else {"version": HPSVersion[version]}
    # the file is small, so its checksum is another
    with pytest.raises(ValueError, match=r"expected the HPS_v2.*_compressed\.pt that its authors published"):
        HPSv2(**options)
    assert hub.asked == [("xswu/HPSv2", name)]


def test_imagereward(hub):
    tokenizer = FIXTURES / "imagereward_tokenizer"
    path, architecture = imagereward_files()
    hub.hold("zai-org/ImageReward", path)
    hub.hold("google-bert/bert-base-uncased", *tokenizer.iterdir())
    reward = ImageReward(architecture=str(architecture))
    assert hub.given()[0] == ("zai-org/ImageReward", "ImageReward.pt")
    assert {repository for repository, _ in hub.given()[1:]} == {"google-bert/bert-base-uncased"}
    pixels, prompts = torch.rand(2, 3, 32, 32), ["a painting", "birds"]
    assert torch.equal(reward(pixels, prompts), imagereward()(pixels, prompts))


@pytest.mark.parametrize(
    ("kind", "model", "words"), [(PickScore, "yuvalkirstain/PickScore_v1", LAION), (CLIPScore, OPENAI, OPENAI)]
)
def test_a_clip_model_and_its_tokenizer(hub, kind, model, words):
    hub.hold(model, *(FOLDER / name for name in MODEL))
    hub.hold(words, *(FOLDER / name for name in WORDS))
    reward = kind()
    assert {(model, name) for name in MODEL} <= set(hub.given())
    assert {repository for repository, _ in hub.asked} == {model, words}
    pixels, prompts = torch.rand(2, 3, 32, 32), ["a cat", "a dog"]
    assert torch.equal(reward(pixels, prompts), kind(str(FOLDER))(pixels, prompts))


def test_aes(hub, tmp_path):
    clip, _ = aes_files()
    config = json.loads((clip / "config.json").read_text())
    hub.hold(OPENAI, *(clip / name for name in MODEL))
    hub.hold("trl-lib/ddpo-aesthetic-predictor", tmp_path / "aesthetic-model.pth")
    torch.save(unfolded(), tmp_path / "aesthetic-model.pth")
    reward = Aesthetic()
    assert hub.given() == [
        ("trl-lib/ddpo-aesthetic-predictor", "aesthetic-model.pth"),
        *((OPENAI, name) for name in MODEL),
    ]
    assert {repository for repository, _ in hub.asked} == {OPENAI, "trl-lib/ddpo-aesthetic-predictor"}
    assert reward.size == config["vision_config"]["image_size"]


def test_the_published_checksums():
    known = {file.name: (file.algorithm, file.digest) for file in (*(v.value for v in HPSVersion), *HEADS)}
    assert known == {
        "HPS_v2_compressed.pt": ("md5", "fd9180de357abf01fdb4eaad64631db4"),
        "HPS_v2.1_compressed.pt": ("md5", "4067542e34ba2553a738c5ac6c1d75c0"),
        "sac+logos+ava1-l14-linearMSE.pth": (
            "sha256",
            "21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0",
        ),
        "aesthetic-model.pth": ("", ""),
    }


@pytest.mark.parametrize("version", HPSVersion)
def test_each_version_of_hpsv2_is_known_by_its_checksum(tmp_path, version):
    path = tmp_path / version.value.name
    path.write_bytes(b"\x80other weights")
    with pytest.raises(ValueError, match=rf"published, with md5 {version.value.digest}, got"):
        HPSv2(str(path), version)


def test_a_copy_of_the_head_is_known_by_its_map(tmp_path):
    clip, _ = aes_files()
    state = unfolded()
    state["layers.0.weight"][0] *= 1.001
    torch.save(state, tmp_path / "aesthetic-model.pth")
    message = (
        r"aesthetic-model\.pth is not the published head \(its w has length 18\.0136 and its b is 5\.23665, theirs"
    )
    with pytest.raises(ValueError, match=message):
        Aesthetic(str(clip), str(tmp_path))
    assert Aesthetic(str(clip), str(tmp_path), verify=False).label == "AES"
    # a name of one's own promises nothing
    (tmp_path / "aesthetic-model.pth").rename(tmp_path / "mine.pth")
    assert Aesthetic(str(clip), str(tmp_path / "mine.pth")).label == "AES"


def test_a_file_without_a_checksum_is_taken():
    path, _ = imagereward_files()
    Published(path.name).verify(path)
