"""The papers that a study's report cites, and those that its networks and methods come from."""

from collections.abc import Collection

from thyro_core.config import Architecture
from thyro_core.reporting.network_references import Reference, network_references

_STUDY = (
    Reference(
        "Subha Indu and Radha",
        "ResNet-18 and Grad-CAM Integration for Enhanced Visualization in Thyroid Nodule "
        "Classification",
        "",
        "",
        "the paper that the study repeats",
    ),
    Reference(
        "Yang et al. 2022",
        "Ultrasound Image Classification of Thyroid Nodules Based on Deep Learning",
        "Frontiers in Oncology 12, 905955.",
        "doi:10.3389/fonc.2022.905955",
        "the same study's first publication",
    ),
)

_METHODS = (
    Reference(
        "Adebayo et al. 2018",
        "Sanity Checks for Saliency Maps",
        "NeurIPS 31.",
        "arXiv:1810.03292",
        "weight randomisation",
    ),
    Reference(
        "Arun et al. 2021",
        "Assessing the Trustworthiness of Saliency Maps for Localizing Abnormalities in "
        "Medical Imaging",
        "Radiology: Artificial Intelligence 3(6), e200267.",
        "doi:10.1148/ryai.2021200267",
        "what saliency maps do not show",
    ),
    Reference(
        "CLAIM 2024",
        "Checklist for Artificial Intelligence in Medical Imaging (CLAIM): 2024 Update",
        "Radiology: Artificial Intelligence 6(4), e240300.",
        "doi:10.1148/ryai.240300",
        "checklist, order of the sections",
        authors="Tejani et al.",
    ),
    Reference(
        "Cox 1958",
        "Two further applications of a model for binary regression",
        "Biometrika 45, 562-565.",
        "doi:10.1093/biomet/45.3-4.562",
        "calibration slope and intercept",
    ),
    Reference(
        "DeLong et al. 1988",
        "Comparing the areas under two or more correlated receiver operating characteristic "
        "curves: a nonparametric approach",
        "Biometrics 44, 837-845.",
        "doi:10.2307/2531595",
        "AUCs of two networks within a split",
    ),
    Reference(
        "Dietterich 1998",
        "Approximate Statistical Tests for Comparing Supervised Classification Learning Algorithms",
        "Neural Computation 10, 1895-1923.",
        "doi:10.1162/089976698300017197",
        "why splits are no independent samples",
    ),
    Reference(
        "Donner and Zou 2012",
        "Closed-form confidence intervals for functions of the normal mean and standard deviation",
        "Statistical Methods in Medical Research 21, 347-359.",
        "doi:10.1177/0962280210383082",
        "intervals of a ratio",
    ),
    Reference(
        "Holm 1979",
        "A Simple Sequentially Rejective Multiple Test Procedure",
        "Scandinavian Journal of Statistics 6, 65-70.",
        "",
        "correction of P for several tests",
    ),
    Reference(
        "Lin et al. 2017",
        "Focal Loss for Dense Object Detection",
        "ICCV 2017, 2980-2988.",
        "doi:10.1109/ICCV.2017.324",
        "the loss that is trained with",
    ),
    Reference(
        "Nadeau and Bengio 2003",
        "Inference for the Generalization Error",
        "Machine Learning 52, 239-281.",
        "doi:10.1023/A:1024068626366",
        "intervals and tests over splits",
    ),
    Reference(
        "Newcombe 2006",
        "Confidence intervals for an effect size measure based on the Mann-Whitney statistic. "
        "Part 2: Asymptotic methods and evaluation",
        "Statistics in Medicine 25, 559-573.",
        "doi:10.1002/sim.2324",
        "intervals of an AUC near the edge",
    ),
    Reference(
        "Obuchowski 1997",
        "Nonparametric Analysis of Clustered ROC Curve Data",
        "Biometrics 53, 567-578.",
        "doi:10.2307/2533958",
        "several images of a patient",
    ),
    Reference(
        "Petsiuk et al. 2018",
        "RISE: Randomized Input Sampling for Explanation of Black-box Models",
        "BMVC 2018.",
        "arXiv:1806.07421",
        "deletion and insertion",
    ),
    Reference(
        "Selvaraju et al. 2017",
        "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization",
        "ICCV 2017, 618-626.",
        "doi:10.1109/ICCV.2017.74",
        "the maps",
    ),
    Reference(
        "ThyNet, Lancet Digital Health 2021",
        "Deep learning-based artificial intelligence model to assist thyroid nodule diagnosis "
        "and management: a multicentre diagnostic study",
        "Lancet Digital Health 3(4), e250-e259.",
        "doi:10.1016/S2589-7500(21)00041-8",
        "a study of seven hospitals",
        authors="Peng et al.",
    ),
    Reference(
        "TRIPOD+AI",
        "TRIPOD+AI statement: updated guidance for reporting clinical prediction models that "
        "use regression or machine learning methods",
        "BMJ 385 (2024), e078378.",
        "doi:10.1136/bmj-2023-078378",
        "checklist",
        authors="Collins et al.",
    ),
    Reference(
        "Vickers and Elkin 2006",
        "Decision Curve Analysis: A Novel Method for Evaluating Prediction Models",
        "Medical Decision Making 26, 565-574.",
        "doi:10.1177/0272989X06295361",
        "decision curves",
    ),
    Reference(
        "Wilson 1927",
        "Probable Inference, the Law of Succession, and Statistical Inference",
        "Journal of the American Statistical Association 22, 209-212.",
        "doi:10.1080/01621459.1927.10502953",
        "intervals of proportions",
    ),
    Reference(
        "Zou and Donner 2008",
        "Construction of confidence limits about effect measures: a general approach",
        "Statistics in Medicine 27, 1693-1702.",
        "doi:10.1002/sim.3095",
        "intervals of a net benefit",
    ),
)


_METHODS_OF_CENTRES = (
    Reference(
        "Debray et al. 2017",
        "A guide to systematic review and meta-analysis of prediction model performance",
        "BMJ 356, i6460.",
        "doi:10.1136/bmj.i6460",
        "an AUC over several centres",
    ),
    Reference(
        "Higgins et al. 2009",
        "A re-evaluation of random-effects meta-analysis",
        "Journal of the Royal Statistical Society A 172, 137-159.",
        "doi:10.1111/j.1467-985X.2008.00552.x",
        "what a further centre may show",
    ),
)


def references(
    architectures: Collection[Architecture], *, has_centres: bool = False
) -> tuple[Reference, ...]:
    """The study that is repeated, then the study's networks and its methods by their authors.

    Args:
        architectures: those of the study.
        has_centres: whether it gives figures by centre.
    """
    methods = [*network_references(architectures), *_METHODS]
    methods += _METHODS_OF_CENTRES if has_centres else ()
    return (*_STUDY, *sorted(methods, key=lambda each: each.citation))
