"""Every network that a study can name has a name, a look and a paper of its own."""

from thyro_core.config import ARCHITECTURES
from thyro_core.config.networks import NETWORKS
from thyro_core.evaluation.display_names import ARCHITECTURE_NAMES
from thyro_core.reporting.figures.style import LOOKS
from thyro_core.reporting.manuscript.bibliography import citation_key
from thyro_core.reporting.network_references import network_reference, network_references
from thyro_core.reporting.references import references


def test_each_network_is_called_otherwise() -> None:
    assert ARCHITECTURE_NAMES.keys() == set(NETWORKS)
    assert len(set(ARCHITECTURE_NAMES.values())) == len(NETWORKS)


def test_no_two_networks_look_the_same_and_colour_is_never_the_only_difference() -> None:
    assert LOOKS.keys() == set(NETWORKS)
    assert len({(look.line, look.marker) for look in LOOKS.values()}) == len(NETWORKS)
    paper = [LOOKS[name] for name in ARCHITECTURES]
    assert len({(look.line, look.marker) for look in paper}) == 4
    tried = ("resnet18", "densenet121", "efficientnet_b0", "convnext_tiny")
    assert len({LOOKS[name].colour for name in tried}) == 4
    assert len({(LOOKS[name].line, LOOKS[name].marker) for name in tried}) == 4


def test_each_network_has_its_paper_and_no_two_papers_one_key() -> None:
    papers = {name: network_reference(name) for name in NETWORKS}
    assert papers["swin_t"].title != papers["swin_v2_t"].title
    assert papers["resnet18"] == papers["resnet18"]
    assert papers["wide_resnet50_2"].citation == "Zagoruyko and Komodakis 2016"
    assert papers["maxvit_t"].citation == "Tu et al. 2022"
    assert all(paper.title and paper.identifier and paper.subject for paper in papers.values())
    every = references(NETWORKS)
    assert len({each.citation for each in every}) == len(every)
    assert len({citation_key(each) for each in every}) == len(every)


def test_a_paper_of_several_networks_stands_once_for_all_of_them() -> None:
    (paper,) = network_references(["resnet18", "resnet50"])
    assert paper.subject == "ResNet18, ResNet50"
    (alone,) = network_references(["resnet18"])
    assert alone.subject == "ResNet18"
