"""The papers that networks come from."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from thyro_core.config import Architecture
from thyro_core.evaluation.display_names import ARCHITECTURE_NAMES


@dataclass(frozen=True)
class Reference:
    """A paper, as a reference list names it."""

    citation: str
    """As the report's text cites it: authors and year."""
    title: str
    source: str
    """Journal, volume, pages or conference; empty: the identifier alone says where."""
    identifier: str
    """DOI or arXiv number; empty: it has none."""
    subject: str
    """What it stands for in the report."""
    authors: str = ""
    """Who wrote it, where the citation names it by something else."""

    @property
    def text(self) -> str:
        """As the reference list goes on after the citation."""
        head = f"{self.authors}: " if self.authors else ""
        return " ".join(part for part in (f"{head}{self.title}.", self.source) if part)


_PAPERS: Mapping[str, Reference] = MappingProxyType(
    {
        "alexnet": Reference("Krizhevsky 2014",
            "One weird trick for parallelizing convolutional neural networks",
            "",
            "arXiv:1404.5997",
            "AlexNet as torchvision has it",
        ),
        "convnext": Reference("Liu et al. 2022a",
            "A ConvNet for the 2020s",
            "CVPR 2022, 11966-11976.",
            "doi:10.1109/CVPR52688.2022.01167",
            "",
        ),
        "densenet": Reference("Huang et al. 2017",
            "Densely Connected Convolutional Networks",
            "CVPR 2017, 2261-2269.",
            "doi:10.1109/CVPR.2017.243",
            "",
        ),
        "efficientnet_b": Reference("Tan and Le 2019",
            "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks",
            "ICML 2019, 6105-6114.",
            "arXiv:1905.11946",
            "",
        ),
        "efficientnet_v2": Reference("Tan and Le 2021",
            "EfficientNetV2: Smaller Models and Faster Training",
            "ICML 2021, 10096-10106.",
            "arXiv:2104.00298",
            "",
        ),
        "googlenet": Reference("Szegedy et al. 2015",
            "Going Deeper with Convolutions",
            "CVPR 2015, 1-9.",
            "doi:10.1109/CVPR.2015.7298594",
            "",
        ),
        "inception_v3": Reference("Szegedy et al. 2016",
            "Rethinking the Inception Architecture for Computer Vision",
            "CVPR 2016, 2818-2826.",
            "doi:10.1109/CVPR.2016.308",
            "",
        ),
        "maxvit": Reference("Tu et al. 2022", "MaxViT: Multi-Axis Vision Transformer", "ECCV 2022.",
            "arXiv:2204.01697",
            "",
        ),
        "mnasnet": Reference("Tan et al. 2019",
            "MnasNet: Platform-Aware Neural Architecture Search for Mobile",
            "CVPR 2019.",
            "arXiv:1807.11626",
            "",
        ),
        "mobilenet_v2": Reference("Sandler et al. 2018",
            "MobileNetV2: Inverted Residuals and Linear Bottlenecks",
            "CVPR 2018, 4510-4520.",
            "doi:10.1109/CVPR.2018.00474",
            "",
        ),
        "mobilenet_v3": Reference("Howard et al. 2019",
            "Searching for MobileNetV3",
            "ICCV 2019, 1314-1324.",
            "doi:10.1109/ICCV.2019.00140",
            "",
        ),
        "regnet": Reference("Radosavovic et al. 2020",
            "Designing Network Design Spaces",
            "CVPR 2020.",
            "arXiv:2003.13678",
            "",
        ),
        "resnet": Reference("He et al. 2016",
            "Deep Residual Learning for Image Recognition",
            "CVPR 2016, 770-778.",
            "doi:10.1109/CVPR.2016.90",
            "",
        ),
        "resnext": Reference("Xie et al. 2017",
            "Aggregated Residual Transformations for Deep Neural Networks",
            "CVPR 2017, 5987-5995.",
            "doi:10.1109/CVPR.2017.634",
            "",
        ),
        "shufflenet": Reference("Ma et al. 2018",
            "ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design",
            "ECCV 2018.",
            "arXiv:1807.11164",
            "",
        ),
        "squeezenet": Reference("Iandola et al. 2016",
            "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and <0.5MB model size",
            "",
            "arXiv:1602.07360",
            "",
        ),
        "swin_v2": Reference("Liu et al. 2022b",
            "Swin Transformer V2: Scaling Up Capacity and Resolution",
            "CVPR 2022, 11999-12009.",
            "arXiv:2111.09883",
            "",
        ),
        "swin": Reference("Liu et al. 2021",
            "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows",
            "ICCV 2021, 9992-10002.",
            "arXiv:2103.14030",
            "",
        ),
        "vgg": Reference("Simonyan and Zisserman 2015",
            "Very Deep Convolutional Networks for Large-Scale Image Recognition",
            "ICLR 2015.",
            "arXiv:1409.1556",
            "",
        ),
        "vit": Reference("Dosovitskiy et al. 2021",
            "An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale",
            "ICLR 2021.",
            "arXiv:2010.11929",
            "",
        ),
        "wide_resnet": Reference("Zagoruyko and Komodakis 2016",
            "Wide Residual Networks",
            "BMVC 2016.",
            "arXiv:1605.07146",
            "",
        ),
    }
)  # fmt: skip
"""By the beginning of their networks' names; the longer beginning first."""


def network_reference(architecture: Architecture) -> Reference:
    """The paper that a network comes from."""
    paper = next(own for start, own in _PAPERS.items() if architecture.startswith(start))
    return paper if paper.subject else replace(paper, subject=ARCHITECTURE_NAMES[architecture])


def network_references(architectures: Collection[Architecture]) -> list[Reference]:
    """The papers of a study's networks; each once, for all networks that come from it."""
    papers: dict[str, Reference] = {}
    for name in architectures:
        own = network_reference(name)
        same = papers.get(own.citation)
        subject = f"{same.subject}, {own.subject}" if same else own.subject
        papers[own.citation] = replace(own, subject=subject)
    return list(papers.values())
