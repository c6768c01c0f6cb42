"""Batch transforms against torchvision, image by image."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torchvision import transforms
from torchvision.transforms import functional as tv

from common.data.datasets import open_dataset
from common.data.transforms import TRANSFORMS, BatchTransform, Draws, TransformSpec, image_pipeline, train_transform_at
from tests.helpers import REPOSITORY

FIXTURES = REPOSITORY / "repro" / "fixtures" / "vdfd"
SPEC = TRANSFORMS["CIFAR100"]


def recorded(id: str):
    manifest = {entry["id"]: entry for entry in json.loads((FIXTURES / "manifest.json").read_text())}
    return manifest[id], np.load(FIXTURES / manifest[id]["file"])


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return open_dataset("Sample", "", "test").images[::31]


def by_torchvision(image: torch.Tensor, spec: TransformSpec, top: int, left: int, flip: bool) -> torch.Tensor:
    """Pad, crop and flip a PIL image, then ToTensor and Normalize."""
    pil = tv.to_pil_image(image)
    pil = tv.crop(tv.pad(pil, [spec.pad] * 4, fill=0), top, left, spec.size, spec.size)
    pil = tv.hflip(pil) if flip else pil
    return tv.normalize(tv.to_tensor(pil), spec.mean, spec.std)


@pytest.mark.parity
@pytest.mark.parametrize("name", ["CIFAR100", "CIFAR10", "TinyImageNet", "FiveDatasets"])
def test_transform_reproduces_the_recorded_one(name):
    entry, arrays = recorded(f"vdfd.data.{name.lower()}")
    args, spec = entry["args"], TRANSFORMS[name]
    assert (list(spec.mean), list(spec.std)) == (args["mean"], args["std"])
    image = torch.from_numpy(arrays["in.image"]).permute(2, 0, 1)[None]
    test = BatchTransform(spec, train=False)(image)[0].numpy()
    train = train_transform_at(spec, image, args["top"], args["left"], args["flip"])[0].numpy()
    np.testing.assert_allclose(test, arrays["out.val"], rtol=entry["rtol"], atol=entry["atol"])
    np.testing.assert_allclose(train, arrays["out.train"], rtol=entry["rtol"], atol=entry["atol"])


@pytest.mark.parity
def test_resize_and_centre_crop_reproduce_the_recorded_ones():
    entry, arrays = recorded("vdfd.data.subimagenet")
    args = entry["args"]
    y, x, c = np.meshgrid(np.arange(args["height"]), np.arange(args["width"]), np.arange(3), indexing="ij")
    pixels = np.floor(127.5 + 127 * np.sin(args["f"] * y * (c + 1) + 0.29 * x)).astype(np.uint8)
    out = image_pipeline(TRANSFORMS["SubImageNet"], train=False)(Image.fromarray(pixels))
    stride = args["stride"]
    np.testing.assert_allclose(
        out[:, ::stride, ::stride].numpy(), arrays["out.val_strided"], rtol=entry["rtol"], atol=entry["atol"]
    )


@pytest.mark.unit
class TestBatchTransform:
    @pytest.mark.parametrize("name", ["CIFAR100", "CIFAR10", "FiveDatasets"])
    def test_is_bit_equal_to_torchvision_at_the_same_offsets(self, images, name):
        spec = TRANSFORMS[name]
        transform = BatchTransform(spec, train=True)
        draws = transform.draw(len(images), torch.Generator().manual_seed(3))
        assert draws.flip.any() and not draws.flip.all()
        ours = transform(images, draws)
        for k, image in enumerate(images):
            theirs = by_torchvision(image, spec, int(draws.top[k]), int(draws.left[k]), bool(draws.flip[k]))
            assert torch.equal(ours[k], theirs)

    def test_every_offset_is_bit_equal_for_one_image(self, images):
        for top in range(9):
            for left in (0, 3, 8):
                for flip in (False, True):
                    ours = train_transform_at(SPEC, images[:1], top, left, flip)[0]
                    assert torch.equal(ours, by_torchvision(images[0], SPEC, top, left, flip))

    def test_test_transform_is_bit_equal_to_the_image_pipeline(self, images):
        pipeline = image_pipeline(SPEC, train=False)
        theirs = torch.stack([pipeline(tv.to_pil_image(image)) for image in images])
        assert torch.equal(BatchTransform(SPEC, train=False)(images), theirs)

    def test_every_byte_value_normalises_as_torchvision_does(self):
        image = torch.arange(256, dtype=torch.uint8).repeat(3, 4)[:, :1024].reshape(3, 32, 32)
        assert torch.equal(BatchTransform(SPEC, train=False)(image[None])[0], by_torchvision(image, SPEC, 4, 4, False))

    def test_padding_is_black(self, images):
        corner = train_transform_at(SPEC, images[:1], 0, 0, False)[0, :, 0, 0]
        black = (0 - torch.tensor(SPEC.mean)) / torch.tensor(SPEC.std)
        assert torch.equal(corner, black)

    def test_draws_are_tops_then_lefts_then_flips(self):
        draws = BatchTransform(SPEC, train=True).draw(50, torch.Generator().manual_seed(1))
        generator = torch.Generator().manual_seed(1)
        top, left = (torch.randint(0, 9, (50,), generator=generator) for _ in range(2))
        assert torch.equal(draws.top, top) and torch.equal(draws.left, left)
        assert torch.equal(draws.flip, torch.rand(50, generator=generator) < 0.5)

    def test_offsets_reach_from_zero_to_twice_the_padding(self):
        draws = BatchTransform(SPEC, train=True).draw(2000, torch.Generator().manual_seed(1))
        assert sorted(draws.top.unique().tolist()) == sorted(draws.left.unique().tolist()) == list(range(9))
        assert 0.45 < draws.flip.float().mean() < 0.55

    @pytest.mark.parametrize("spec, train", [(SPEC, False), (TRANSFORMS["MNIST"], True)])
    def test_nothing_is_drawn_without_augmentation(self, spec, train):
        generator = torch.Generator().manual_seed(1)
        before = generator.get_state()
        assert BatchTransform(spec, train).draw(5, generator) is None
        assert torch.equal(before, generator.get_state())

    def test_the_global_generator_is_left_alone(self, images):
        before = torch.get_rng_state()
        transform = BatchTransform(SPEC, train=True)
        transform(images, transform.draw(len(images), torch.Generator()))
        assert torch.equal(before, torch.get_rng_state())

    @pytest.mark.parametrize("size", [64, 96])
    def test_small_images_are_enlarged_as_pillow_does_by_nearest(self, images, size):
        spec = TransformSpec(SPEC.mean, SPEC.std, size)
        theirs = torch.from_numpy(
            np.array(tv.to_pil_image(images[0]).resize((size, size), Image.Resampling.NEAREST))
        ).permute(2, 0, 1)
        assert torch.equal(BatchTransform(spec, train=False).fit(images[:1])[0], theirs)

    def test_small_images_are_resized_before_they_are_cropped(self, images):
        spec = TRANSFORMS["TinyImageNet"]
        draws = Draws(torch.tensor([2]), torch.tensor([7]), torch.tensor([True]))
        big = BatchTransform(spec, train=False).fit(images[:1])
        ours = BatchTransform(spec, train=True)(images[:1], draws)[0]
        assert torch.equal(ours, by_torchvision(big[0], spec, 2, 7, True))

    def test_grey_images(self):
        image = torch.arange(28 * 28, dtype=torch.int64).remainder(256).to(torch.uint8).reshape(1, 1, 28, 28)
        out = BatchTransform(TRANSFORMS["MNIST"], train=True)(image, None)
        assert out.shape == (1, 1, 28, 28)
        assert out[0, 0, 0, 5] == pytest.approx((5 / 255 - 0.1307) / 0.3081, rel=1e-6)

    def test_random_resized_crop_has_no_batch_form(self):
        with pytest.raises(ValueError, match="image_pipeline"):
            BatchTransform(TRANSFORMS["SubImageNet"], train=True)

    @pytest.mark.parametrize("top, left", [(-1, 0), (0, 9)])
    def test_offsets_outside_are_refused(self, images, top, left):
        with pytest.raises(ValueError, match="0 to 8"):
            train_transform_at(SPEC, images, top, left, False)

    @pytest.mark.gpu
    def test_a_gpu_gives_the_same_bits(self, images):
        transform = BatchTransform(SPEC, train=True)
        draws = transform.draw(len(images), torch.Generator().manual_seed(3))
        assert torch.equal(transform(images.cuda(), draws.to("cuda")).cpu(), transform(images, draws))


@pytest.mark.unit
class TestImagePipeline:
    def test_training_pipeline_is_torchvisions_with_its_random_stream(self, images):
        reference = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(SPEC.mean, SPEC.std),
            ]
        )
        ours = image_pipeline(SPEC, train=True)
        for k, image in enumerate(images):
            pil = tv.to_pil_image(image)
            torch.manual_seed(k)
            expected = reference(pil)
            torch.manual_seed(k)
            assert torch.equal(ours(pil), expected)

    def test_resized_crop_for_image_files(self):
        pil = Image.new("RGB", (300, 280), (255, 0, 0))
        for train in (True, False):
            assert image_pipeline(TRANSFORMS["SubImageNet"], train)(pil).shape == (3, 224, 224)

    def test_small_images_are_resized_first(self, images):
        spec = TRANSFORMS["TinyImageNet"]
        theirs = image_pipeline(spec, train=False)(tv.to_pil_image(images[0]))
        assert torch.equal(BatchTransform(spec, train=False)(images[:1])[0], theirs)


@pytest.mark.unit
def test_the_sample_is_transformed_as_cifar100():
    assert TRANSFORMS["Sample"] == TRANSFORMS["CIFAR100"]


@pytest.mark.unit
@pytest.mark.parametrize("wrong", [{"kind": "crop"}, {"kind": "pad_crop"}, {"pad": 4}, {"kind": "resized_crop"}])
def test_a_spec_that_contradicts_itself_is_refused(wrong):
    with pytest.raises(ValueError):
        TransformSpec((0.5,), (0.5,), 32, **wrong)


@pytest.mark.unit
class TestBorder:
    """28x28 images in a black frame; a crop of the framed image is a crop of the image padded by more."""

    SPEC = TransformSpec((0.1,), (0.2752,), 32, "pad_crop", border=2, pad=2)

    def test_test_images_stand_in_a_black_frame(self):
        image = torch.randint(1, 256, (1, 1, 28, 28), dtype=torch.uint8)
        expected = F.pad(image, (2, 2, 2, 2))
        black = (0 - 0.1) / 0.2752
        out = BatchTransform(self.SPEC, train=False)(image)
        assert out[0, 0, 0, 0].item() == pytest.approx(black) and out.shape[2:] == (32, 32)
        restored = (out * 0.2752 + 0.1) * 255
        torch.testing.assert_close(restored, expected.float(), rtol=0, atol=1e-3)
        pil = image_pipeline(self.SPEC, train=False)(Image.fromarray(image[0, 0].numpy()))
        assert torch.equal(pil, out[0])

    @pytest.mark.parametrize(("top", "left"), [(0, 0), (4, 3)])
    def test_training_images_are_crops_of_the_image_padded_by_four(self, top, left):
        image = torch.randint(0, 256, (1, 1, 28, 28), dtype=torch.uint8)
        out = train_transform_at(self.SPEC, image, top, left, flip=False)
        crop = F.pad(image, (4, 4, 4, 4))[:, :, top : top + 32, left : left + 32]
        assert torch.equal(out, BatchTransform(self.SPEC, train=False).normalise(crop))
        with pytest.raises(ValueError, match="offsets reach"):
            train_transform_at(self.SPEC, image, 5, 0, flip=False)
