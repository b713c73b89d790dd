"""What is known of each network before it is made: its name, its work and its memory.

Without torch: the process that leads a study plans with these figures. The work is six times the
multiply-adds of torchvision's own count (a forward pass, and a backward pass of twice its work);
the rest is counted of the networks themselves with two outputs, at the side that their weights were
made with, and a test counts again.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from thyro_core.config import Architecture


class NetworkFigures(NamedTuple):
    """A network's name and size."""

    display_name: str
    """As its authors write it."""
    gflop: float
    """Work of one training image [GFLOP]."""
    activation_bytes: float
    """What one training image keeps for the backward pass, in fp32 [bytes]."""
    parameters: float
    model_bytes: int
    """What a trained network takes in the store [bytes]."""


_of = NetworkFigures
NETWORK_FIGURES: Mapping[Architecture, NetworkFigures] = MappingProxyType(
    {
        "resnet18": _of("ResNet18", 10.65, 22.3e6, 11.2e6, 44_748_712),
        "alexnet": _of("AlexNet", 4.1, 3.8e6, 57.1e6, 228_048_136),
        "vgg16": _of("VGG16", 92.6, 73.3e6, 134.3e6, 537_074_952),
        "inception_v3": _of("Inception v3", 34.3, 98.5e6, 24.4e6, 97_541_264),
        "convnext_base": _of("ConvNeXt-Base", 92.13, 232e6, 87.6e6, 350_274_056),
        "convnext_large": _of("ConvNeXt-Large", 206.17, 348e6, 196e6, 784_933_640),
        "convnext_small": _of("ConvNeXt-Small", 52.1, 174e6, 49.5e6, 197_824_904),
        "convnext_tiny": _of("ConvNeXt-Tiny", 26.74, 109e6, 27.8e6, 111_286_664),
        "densenet121": _of("DenseNet121", 17, 131e6, 6.96e6, 28_159_184),
        "densenet161": _of("DenseNet161", 46.37, 244e6, 26.5e6, 106_786_704),
        "densenet169": _of("DenseNet169", 20.16, 158e6, 12.5e6, 50_586_192),
        "densenet201": _of("DenseNet201", 25.75, 204e6, 18.1e6, 73_304_912),
        "efficientnet_b0": _of("EfficientNet-B0", 2.32, 88.4e6, 4.01e6, 16_208_896),
        "efficientnet_b1": _of("EfficientNet-B1", 4.12, 143e6, 6.52e6, 26_311_728),
        "efficientnet_b2": _of("EfficientNet-B2", 6.53, 213e6, 7.7e6, 31_086_072),
        "efficientnet_b3": _of("EfficientNet-B3", 10.96, 313e6, 10.7e6, 43_147_032),
        "efficientnet_b4": _of("EfficientNet-B4", 26.36, 654e6, 17.6e6, 70_710_376),
        "efficientnet_b5": _of("EfficientNet-B5", 61.6, 1310e6, 28.3e6, 114_071_400),
        "efficientnet_b6": _of("EfficientNet-B6", 114.41, 2220e6, 40.7e6, 163_860_056),
        "efficientnet_b7": _of("EfficientNet-B7", 226.48, 3850e6, 63.8e6, 256_412_512),
        "efficientnet_v2_l": _of("EfficientNet v2-L", 336.48, 2020e6, 117e6, 470_999_376),
        "efficientnet_v2_m": _of("EfficientNet v2-M", 147.49, 1150e6, 52.9e6, 212_613_056),
        "efficientnet_v2_s": _of("EfficientNet v2-S", 50.2, 453e6, 20.2e6, 81_336_568),
        "googlenet": _of("GoogLeNet", 8.99, 48.2e6, 5.6e6, 22_466_512),
        "maxvit_t": _of("MaxViT-T", 33.35, 308e6, 30.4e6, 122_247_904),
        "mnasnet0_5": _of("MNASNet 0.5", 0.62, 25.2e6, 0.94e6, 3_843_208),
        "mnasnet0_75": _of("MNASNet 0.75", 1.29, 38.9e6, 1.89e6, 7_686_728),
        "mnasnet1_0": _of("MNASNet 1.0", 1.88, 44.4e6, 3.1e6, 12_571_592),
        "mnasnet1_3": _of("MNASNet 1.3", 3.16, 59.6e6, 5e6, 20_210_952),
        "mobilenet_v2": _of("MobileNet v2", 1.81, 78.3e6, 2.23e6, 9_042_600),
        "mobilenet_v3_large": _of("MobileNet v3 large", 1.3, 44.2e6, 4.2e6, 16_916_344),
        "mobilenet_v3_small": _of("MobileNet v3 small", 0.34, 16.2e6, 1.52e6, 6_128_344),
        "regnet_x_16gf": _of("RegNetX 16 GF", 95.65, 199e6, 52.2e6, 209_379_776),
        "regnet_x_1_6gf": _of("RegNetX 1.6 GF", 9.62, 62.3e6, 8.28e6, 33_290_336),
        "regnet_x_32gf": _of("RegNetX 32 GF", 190.42, 284e6, 105e6, 421_831_064),
        "regnet_x_3_2gf": _of("RegNetX 3.2 GF", 19.06, 89.4e6, 14.3e6, 57_409_160),
        "regnet_x_400mf": _of("RegNetX 400 MF", 2.48, 25.3e6, 5.1e6, 20_535_104),
        "regnet_x_800mf": _of("RegNetX 800 MF", 4.8, 40.4e6, 6.59e6, 26_501_680),
        "regnet_x_8gf": _of("RegNetX 8 GF", 47.97, 111e6, 37.7e6, 150_984_408),
        "regnet_y_128gf": _of("RegNetY 128 GF", 2247.42, 1870e6, 637e6, 2_551_399_696),
        "regnet_y_16gf": _of("RegNetY 16 GF", 95.47, 202e6, 80.6e6, 322_776_496),
        "regnet_y_1_6gf": _of("RegNetY 1.6 GF", 9.67, 72e6, 10.3e6, 41_472_208),
        "regnet_y_32gf": _of("RegNetY 32 GF", 193.68, 267e6, 141e6, 565_998_456),
        "regnet_y_3_2gf": _of("RegNetY 3.2 GF", 19.06, 100e6, 17.9e6, 71_970_640),
        "regnet_y_400mf": _of("RegNetY 400 MF", 2.41, 33.7e6, 3.9e6, 15_725_136),
        "regnet_y_800mf": _of("RegNetY 800 MF", 5, 46.9e6, 5.65e6, 22_718_432),
        "regnet_y_8gf": _of("RegNetY 8 GF", 50.84, 172e6, 37.4e6, 149_820_584),
        "resnet101": _of("ResNet101", 46.81, 127e6, 42.5e6, 170_439_240),
        "resnet152": _of("ResNet152", 69.08, 178e6, 58.1e6, 233_198_560),
        "resnet34": _of("ResNet34", 21.98, 32.3e6, 21.3e6, 85_211_176),
        "resnet50": _of("ResNet50", 24.53, 86.1e6, 23.5e6, 94_261_424),
        "resnext101_32x8d": _of("ResNeXt101 32x8d", 98.48, 247e6, 86.7e6, 347_798_088),
        "resnext101_64x4d": _of("ResNeXt101 64x4d", 92.76, 247e6, 81.4e6, 326_453_832),
        "resnext50_32x4d": _of("ResNeXt50 32x4d", 25.38, 112e6, 23e6, 92_209_328),
        "shufflenet_v2_x0_5": _of("ShuffleNet v2 x0.5", 0.24, 11.1e6, 0.344e6, 1_407_624),
        "shufflenet_v2_x1_0": _of("ShuffleNet v2 x1.0", 0.87, 20.4e6, 1.26e6, 5_087_784),
        "shufflenet_v2_x1_5": _of("ShuffleNet v2 x1.5", 1.78, 28.7e6, 2.48e6, 10_016_904),
        "shufflenet_v2_x2_0": _of("ShuffleNet v2 x2.0", 3.5, 38.5e6, 5.35e6, 21_531_688),
        "squeezenet1_0": _of("SqueezeNet 1.0", 4.91, 35.1e6, 0.736e6, 2_945_800),
        "squeezenet1_1": _of("SqueezeNet 1.1", 2.09, 20.4e6, 0.724e6, 2_894_088),
        "swin_b": _of("Swin-B", 92.59, 227e6, 86.7e6, 347_442_088),
        "swin_s": _of("Swin-S", 52.45, 170e6, 48.8e6, 195_816_176),
        "swin_t": _of("Swin-T", 26.95, 107e6, 27.5e6, 110_314_064),
        "swin_v2_b": _of("Swin v2-B", 121.95, 394e6, 86.9e6, 348_461_224),
        "swin_v2_s": _of("Swin v2-S", 69.28, 297e6, 49e6, 196_709_552),
        "swin_v2_t": _of("Swin v2-T", 35.64, 184e6, 27.6e6, 110_751_248),
        "vgg11": _of("VGG11", 45.65, 48.9e6, 129e6, 515_098_120),
        "vgg11_bn": _of("VGG11 with batch norm", 45.65, 78.6e6, 129e6, 515_142_216),
        "vgg13": _of("VGG13", 67.85, 68.1e6, 129e6, 515_836_168),
        "vgg13_bn": _of("VGG13 with batch norm", 67.85, 117e6, 129e6, 515_883_352),
        "vgg16_bn": _of("VGG16 with batch norm", 92.82, 128e6, 134e6, 537_142_640),
        "vgg19": _of("VGG19", 117.79, 78.6e6, 140e6, 558_313_736),
        "vgg19_bn": _of("VGG19 with batch norm", 117.79, 138e6, 140e6, 558_401_928),
        "vit_b_16": _of("ViT-B/16", 105.38, 155e6, 85.8e6, 343_200_776),
        "vit_b_32": _of("ViT-B/32", 26.45, 35.5e6, 87.5e6, 349_827_080),
        "vit_h_14": _of("ViT-H/14", 6100.3, 7900e6, 632e6, 2_528_768_008),
        "vit_l_16": _of("ViT-L/16", 369.33, 410e6, 303e6, 1_213_214_728),
        "vit_l_32": _of("ViT-L/32", 92.27, 93.3e6, 306e6, 1_222_049_800),
        "wide_resnet101_2": _of("Wide ResNet101-2", 136.52, 167e6, 125e6, 499_919_432),
        "wide_resnet50_2": _of("Wide ResNet50-2", 68.39, 112e6, 66.8e6, 267_626_672),
    }
)
"""Every network that a study can name."""
