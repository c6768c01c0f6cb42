"""RFD's steps and its generator loop done literally, as the originals do them; for speed comparisons and their test.

A step runs the old network four times: for the first stage's map of the real batch (the backbone returns it beside its
last map), for the pseudo labels and for the logits of the synthetic batch, for the logits of the real one. It counts
labels and reads losses on the host, and writes 2 N JPEG files if asked. In the finetuning phase it still computes what
the feature distillation needs, and throws it away. The generator step gathers norm statistics from a permuted copy of
every layer's input.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.utils import save_image

from common.backbones.generators_dfcil import DFCILGenerator
from rfd.inversion_losses import smoothing_kernel
from rfd.networks import IncrementalNetwork


def literal_images(generator: DFCILGenerator, noise: Tensor) -> Tensor:
    """The generator's layers one after the other, doubling by interpolation."""
    x = generator.conv_blocks0(generator.l1(noise).view(-1, generator.width, generator.side, generator.side))
    for name in generator.blocks:
        x = getattr(generator, name)(F.interpolate(x, scale_factor=2))
    return x if generator.output_block is None else getattr(generator, generator.output_block)(x)


def literal_relation(student: Tensor, teacher: Tensor, temperature: float = 4.0) -> Tensor:
    """Row term plus column term of the relation distillation, correlation by correlation."""

    def correlation(x: Tensor, y: Tensor) -> Tensor:
        x, y = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
        return (x * y).sum(1) / (x.norm(dim=1) * y.norm(dim=1) + 1e-8)

    p, q = (student / temperature).softmax(1), (teacher / temperature).softmax(1)
    return 1 - correlation(p, q).mean() + 1 - correlation(p.t(), q.t()).mean()


class LiteralStep:
    """One step of RFD after another, on networks of its own.

    Args:
        network, teacher: new network, in the modes of its phase, and frozen old one.
        generator: makes the synthetic images.
        factors: what multiplies the terms.
        folder: where the images of each step are written; None: nowhere.
        class_weights: (C,) of the cross-entropy in the finetuning phase; None: the representation phase.
    """

    def __init__(
        self,
        network: IncrementalNetwork,
        teacher: IncrementalNetwork,
        generator: DFCILGenerator,
        factors: dict[str, float],
        folder: Path | None = None,
        class_weights: Tensor | None = None,
    ) -> None:
        self.network, self.teacher, self.generator = network, teacher, generator
        self.factors, self.folder, self.class_weights = factors, folder, class_weights
        self.optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, weight_decay=5e-4, foreach=False)
        self.counts: dict[int, int] = {}

    def __call__(self, images: Tensor, target: Tensor, noise: Tensor) -> dict[str, float]:
        """Take the step; returns the weighted terms and their sum."""
        network, teacher = self.network, self.teacher
        features = F.adaptive_avg_pool2d(network.backbone(images), 1).flatten(1)
        logits = network.head.classify(features)
        self.generator.eval()
        with torch.no_grad():
            synthetic = literal_images(self.generator, noise)
            labels = teacher(synthetic).argmax(1)
        synthetic_logits = network(synthetic)
        with torch.no_grad():
            first = teacher.backbone.stage_outputs(images)[0]
        hybrid = F.adaptive_avg_pool2d(network.backbone.from_first_stage(first), 1).flatten(1)
        with torch.no_grad():
            old_synthetic, old_real = teacher(synthetic), teacher(images)
        n_old = old_real.shape[1]
        terms = {
            "distkd_old": literal_relation(synthetic_logits[:, :n_old], old_synthetic),
            "distkd_new": literal_relation(logits[:, :n_old], old_real),
        }
        if self.class_weights is None:
            terms["ce"] = F.cross_entropy(logits[:, n_old:], target - n_old)
            terms["sm"] = F.mse_loss(hybrid, features)
        else:
            both, all_labels = torch.cat([logits, synthetic_logits]), torch.cat([target, labels])
            terms["ce"] = F.cross_entropy(both, all_labels, self.class_weights)
        terms = {name: self.factors[name] * value for name, value in terms.items()}
        loss = sum(terms.values())
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        for label in torch.cat([target, labels]).tolist():
            self.counts[label] = self.counts.get(label, 0) + 1
        if self.folder is not None:
            for kind, batch in (("imgs", images), ("gen_imgs", synthetic)):
                for number, image in enumerate(batch):
                    save_image(image, self.folder / f"{kind}_{number}.jpg", normalize=True)
        return {name: value.item() for name, value in {**terms, "loss": loss}.items()}


def literal_generator_step(
    generator: DFCILGenerator, classifier: nn.Module, optimizer: torch.optim.Optimizer, noise: Tensor
) -> float:
    """One generator step with the published weights; returns the loss before it."""
    found: list[Tensor] = []

    def listen(layer: nn.BatchNorm2d, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        columns = arguments[0].permute(1, 0, 2, 3).contiguous().view(arguments[0].shape[1], -1)
        mean, variance = columns.mean(1), columns.var(1, unbiased=False) + 1e-8
        stored_mean, stored = layer.running_mean, layer.running_var
        ratio = (stored + (stored_mean - mean) ** 2 + 1e-8) / variance
        found.append(0.5 * (torch.log(variance / (stored + 1e-8)) + ratio - 1).mean())

    handles = [m.register_forward_hook(listen) for m in classifier.modules() if isinstance(m, nn.BatchNorm2d)]
    generator.train()
    images = literal_images(generator, noise)
    logits = classifier(images)
    for handle in handles:
        handle.remove()
    mean = logits.softmax(1).mean(0)
    smoothed = F.conv2d(F.pad(images, (2,) * 4, mode="reflect"), smoothing_kernel().to(images.device), groups=3)
    loss = F.cross_entropy(logits / 1000, logits.argmax(1)) + 0.001 * F.mse_loss(images, smoothed)
    loss = (
        loss + 1 + (mean * mean.log()).sum() / torch.log(torch.tensor(float(len(mean)))) + 50 * sum(found) / len(found)
    )
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()
