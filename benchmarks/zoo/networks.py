"""Networks of packages on the Python package index, small."""

from __future__ import annotations

from functools import partial

from torch import nn

from benchmarks.zoo.member import (
    CLASSES,
    Member,
    monai,
    nnunet,
    smp,
    spandrel,
    timm,
    torchvision,
    transformers,
    upernet,
)

SWIN = {"embed_dim": 24, "depths": (2, 2), "num_heads": (2, 2), "upsampler": "pixelshuffle", "upscale": 2}
FLAT = {"spatial_dims": 2, "in_channels": 3, "out_channels": CLASSES}
BATCH = {"norm": "batch"}

ZOO = (
    Member(name="smp MAnet, resnet18", make=partial(smp, "MAnet", "resnet18"), size=(128, 192), stride=32),
    Member(name="smp Segformer, mit_b0", make=partial(smp, "Segformer", "mit_b0"), size=(128, 192), stride=32),
    *(
        Member(
            name=f"smp {family}, {encoder}",
            size=(64, 96),
            stride=8,
            make=partial(smp, family, encoder, encoder_depth=3, decoder_channels=(32, 16, 8)),
        )
        for family, encoder in (
            ("Unet", "resnet18"),
            ("Unet", "timm-efficientnet-b0"),
            ("Unet", "vgg11_bn"),
            ("Unet", "mobileone_s0"),
            ("Unet", "tu-regnety_002"),
            ("Unet", "tu-mobilenetv3_small_050"),
            ("UnetPlusPlus", "resnet18"),
        )
    ),
    Member(
        name="smp Linknet, resnet18",
        size=(64, 96),
        stride=8,
        make=partial(smp, "Linknet", "resnet18", encoder_depth=3),
    ),
    Member(
        name="smp Unet, resnet18, scse attention",
        make=partial(
            smp, "Unet", "resnet18", encoder_depth=3, decoder_channels=(64, 32, 16), decoder_attention_type="scse"
        ),
        size=(64, 96),
        stride=8,
    ),
    Member(
        name="monai UNet, batch",
        stride=4,
        make=partial(monai, "UNet", **FLAT, channels=(8, 16, 32), strides=(2, 2), num_res_units=1, **BATCH),
    ),
    Member(
        name="monai UNet, instance",
        stride=4,
        make=partial(monai, "UNet", **FLAT, channels=(8, 16, 32), strides=(2, 2), num_res_units=1),
    ),
    Member(
        name="monai BasicUNet, batch",
        stride=16,
        make=partial(monai, "BasicUNet", **FLAT, features=(8, 8, 16, 16, 32, 8), **BATCH),
    ),
    Member(
        name="monai BasicUNet, pixel shuffle",
        stride=16,
        make=partial(monai, "BasicUNet", **FLAT, features=(8, 8, 16, 16, 32, 8), upsample="pixelshuffle", **BATCH),
    ),
    Member(
        name="monai BasicUNetPlusPlus, batch",
        stride=16,
        make=partial(monai, "BasicUNetPlusPlus", **FLAT, features=(8, 8, 16, 16, 32, 8), **BATCH),
    ),
    Member(
        name="monai SegResNet, group",
        stride=4,
        make=partial(monai, "SegResNet", **FLAT, init_filters=8, blocks_down=(1, 2, 2), blocks_up=(1, 1)),
    ),
    Member(
        name="monai SegResNet, batch",
        stride=4,
        make=partial(monai, "SegResNet", **FLAT, init_filters=8, blocks_down=(1, 2, 2), blocks_up=(1, 1), norm="batch"),
    ),
    Member(
        name="monai AttentionUnet",
        stride=4,
        make=partial(monai, "AttentionUnet", **FLAT, channels=(8, 16, 32), strides=(2, 2)),
    ),
    Member(
        name="monai DynUNet, batch",
        stride=4,
        make=partial(
            monai,
            "DynUNet",
            **FLAT,
            kernel_size=(3, 3, 3),
            strides=(1, 2, 2),
            upsample_kernel_size=(2, 2),
            filters=(8, 16, 32),
            norm_name="batch",
            res_block=True,
        ),
    ),
    Member(name="monai HighResNet", make=partial(monai, "HighResNet", **FLAT)),
    Member(
        name="monai RegUNet",
        stride=4,
        make=partial(
            monai, "RegUNet", **FLAT, num_channel_initial=8, depth=2, out_kernel_initializer="kaiming_uniform"
        ),
    ),
    Member(
        name="monai FlexibleUNet, resnet18",
        stride=32,
        size=(128, 192),
        make=partial(
            monai,
            "FlexibleUNet",
            in_channels=3,
            out_channels=CLASSES,
            backbone="resnet18",
            decoder_channels=(32, 16, 8, 8, 8),
            spatial_dims=2,
        ),
    ),
    Member(
        name="monai MedNeXt",
        stride=16,
        make=partial(
            monai,
            "MedNeXt",
            **FLAT,
            init_filters=8,
            encoder_expansion_ratio=2,
            decoder_expansion_ratio=2,
            bottleneck_expansion_ratio=2,
            blocks_down=(1, 1, 1, 1),
            blocks_bottleneck=1,
            blocks_up=(1, 1, 1, 1),
        ),
    ),
    Member(
        name="monai SwinUNETR",
        stride=32,
        size=(64, 96),
        make=partial(monai, "SwinUNETR", **FLAT, feature_size=12, depths=(1, 1, 1, 1)),
    ),
    Member(
        name="monai UNETR",
        size=(64, 96),
        make=partial(
            monai, "UNETR", **FLAT, img_size=(64, 96), feature_size=8, hidden_size=48, mlp_dim=96, num_heads=4
        ),
    ),
    Member(
        name="nnunet PlainConvUNet, batch",
        stride=4,
        make=partial(nnunet, "PlainConvUNet", nn.BatchNorm2d, module="unet", n_conv_per_stage=(1, 1, 1)),
    ),
    Member(
        name="nnunet PlainConvUNet, instance",
        stride=4,
        make=partial(
            nnunet,
            "PlainConvUNet",
            nn.InstanceNorm2d,
            module="unet",
            n_conv_per_stage=(1, 1, 1),
            norm_op_kwargs={"affine": True},
        ),
    ),
    Member(
        name="nnunet ResidualEncoderUNet, batch",
        stride=4,
        make=partial(nnunet, "ResidualEncoderUNet", nn.BatchNorm2d, module="unet", n_blocks_per_stage=(1, 2, 2)),
    ),
    Member(name="torchvision FCN, ResNet-50", stride=8, make=partial(torchvision, "fcn_resnet50")),
    Member(
        name="torchvision DeepLabV3, MobileNet v3",
        stride=16,
        size=(64, 96),
        make=partial(torchvision, "deeplabv3_mobilenet_v3_large"),
    ),
    Member(
        name="torchvision LR-ASPP, MobileNet v3",
        stride=16,
        size=(64, 96),
        make=partial(torchvision, "lraspp_mobilenet_v3_large"),
    ),
    *(
        Member(name=f"timm {name}", make=partial(timm, name, out_indices=(index,)), size=(64, 96), stride=stride)
        for name, index, stride in (
            ("repvgg_a0", 2, 8),
            ("ghostnet_050", 2, 8),
            ("mobilenetv4_conv_small", 2, 8),
            ("dla34", 2, 8),
            ("res2net50_14w_8s", 2, 8),
            ("dpn48b", 2, 8),
            ("resnest14d", 2, 8),
            ("efficientnet_lite0", 2, 8),
            ("xception41", 2, 8),
            ("selecsls42", 2, 8),
            ("vovnet39a", 2, 8),
            ("hrnet_w18_small", 2, 32),
            ("convnextv2_atto", 1, 8),
            ("fastvit_t8", 1, 8),
            ("poolformer_s12", 1, 8),
            ("inception_next_atto", 1, 8),
            ("starnet_s1", 1, 8),
            ("edgenext_xx_small", 1, 8),
            ("pvt_v2_b0", 1, 8),
            ("focalnet_tiny_srf", 1, 8),
            ("mobilevitv2_050", 2, 32),
        )
    ),
    Member(
        name="timm swin_tiny_patch4_window7_224",
        size=(112, 168),
        stride=56,
        make=partial(
            timm,
            "swin_tiny_patch4_window7_224",
            out_indices=(1,),
            img_size=(112, 168),
            embed_dim=24,
            depths=(2, 2),
            num_heads=(2, 4),
            strict_img_size=False,
            channels_last=True,
        ),
    ),
    *(
        Member(name=f"spandrel {name}", make=partial(spandrel, path, **options), size=size, stride=stride)
        for name, path, stride, size, options in (
            ("ESRGAN", "ESRGAN.__arch.RRDB.RRDBNet", 1, (32, 48), {"num_blocks": 2, "num_filters": 16}),
            ("Compact", "Compact.__arch.SRVGG.SRVGGNetCompact", 1, (32, 48), {"num_feat": 16, "num_conv": 4}),
            ("SwinIR", "SwinIR.__arch.SwinIR.SwinIR", 8, (64, 96), {**SWIN, "window_size": 8}),
            ("HAT", "HAT.__arch.HAT.HAT", 16, (64, 96), {**SWIN, "window_size": 16, "squeeze_factor": 6}),
            (
                "DAT",
                "DAT.__arch.DAT.DAT",
                16,
                (64, 96),
                {"embed_dim": 24, "depth": [2], "num_heads": [2], "split_size": [8, 16]},
            ),
            (
                "SPAN",
                "SPAN.__arch.span.SPAN",
                1,
                (32, 48),
                {"num_in_ch": 3, "num_out_ch": 3, "feature_channels": 16, "upscale": 2},
            ),
            ("PLKSR", "PLKSR.__arch.PLKSR.PLKSR", 1, (32, 48), {"dim": 16, "n_blocks": 2}),
            ("RealPLKSR", "PLKSR.__arch.RealPLKSR.RealPLKSR", 1, (32, 48), {"dim": 16, "n_blocks": 2}),
            ("OmniSR", "OmniSR.__arch.OmniSR.OmniSR", 8, (64, 96), {"num_feat": 16}),
            (
                "NAFNet",
                "NAFNet.__arch.NAFNet_arch.NAFNet",
                4,
                (64, 96),
                {"width": 8, "enc_blk_nums": [1, 1], "dec_blk_nums": [1, 1]},
            ),
            ("SCUNet", "SCUNet.__arch.SCUNet.SCUNet", 64, (128, 192), {"config": [2, 1, 1, 1, 1, 1, 2], "dim": 64}),
            ("DnCNN", "DnCNN.__arch.network_dncnn.DnCNN", 1, (32, 48), {"in_nc": 3, "out_nc": 3, "nc": 16, "nb": 5}),
            (
                "DRUNet",
                "DRUNet.__arch.network_unet.DRUNet",
                8,
                (64, 96),
                {"in_nc": 3, "out_nc": 3, "nc": [8, 16, 16, 32], "nb": 1},
            ),
            ("RGT", "RGT.__arch.rgt.RGT", 16, (64, 96), {"embed_dim": 24, "depth": [2], "num_heads": [2]}),
            ("ATD", "ATD.__arch.atd_arch.ATD", 8, (64, 96), {**SWIN, "depths": (1,), "num_heads": (2,)}),
            ("DRCT", "DRCT.__arch.drct_arch.DRCT", 16, (64, 96), {**SWIN, "depths": (2,), "num_heads": (2,)}),
            ("Real-CUGAN", "RealCUGAN.__arch.upcunet_v3.UpCunet2x_fast", 4, (64, 96), {}),
            ("MoSR", "MoSR.__arch.mosr_arch.MoSR", 1, (32, 48), {"dim": 16, "n_block": 2}),
            ("RCAN", "RCAN.__arch.rcan_arch.RCAN", 1, (32, 48), {"n_resgroups": 1, "n_resblocks": 2, "n_feats": 16}),
            ("SAFMN", "SAFMN.__arch.safmn.SAFMN", 8, (64, 96), {"dim": 16, "n_blocks": 2}),
            ("CRAFT", "CRAFT.__arch.CRAFT.CRAFT", 16, (64, 96), {"depths": [2], "num_heads": [6]}),
            (
                "FDAT",
                "FDAT.__arch.fdat.FDAT",
                8,
                (64, 96),
                {"embed_dim": 24, "num_groups": 1, "depth_per_group": 2, "num_heads": 2, "mid_dim": 16},
            ),
            (
                "MixDehazeNet",
                "MixDehazeNet.__arch.MixDehazeNet.MixDehazeNet",
                4,
                (64, 96),
                {"embed_dims": [8, 16, 24, 16, 8], "depths": [1] * 5},
            ),
            (
                "KBNet",
                "KBNet.__arch.kbnet_s.KBNet_s",
                4,
                (64, 96),
                {"width": 8, "middle_blk_num": 1, "enc_blk_nums": [1, 1], "dec_blk_nums": [1, 1]},
            ),
        )
    ),
    Member(
        name="transformers Segformer",
        stride=32,
        size=(128, 192),
        make=partial(transformers, "SegformerForSemanticSegmentation", "SegformerConfig", num_labels=CLASSES),
    ),
    Member(
        name="transformers Swin2SR",
        stride=8,
        size=(64, 96),
        make=partial(
            transformers,
            "Swin2SRForImageSuperResolution",
            "Swin2SRConfig",
            "reconstruction",
            embed_dim=24,
            depths=(2, 2),
            num_heads=(2, 2),
            window_size=8,
        ),
    ),
    Member(
        name="transformers UperNet, ConvNeXt",
        stride=32,
        size=(128, 192),
        make=partial(upernet, "ConvNextConfig", hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1]),
    ),
    Member(
        name="transformers MobileNetV2 DeepLab",
        stride=16,
        size=(128, 192),
        make=partial(
            transformers,
            "MobileNetV2ForSemanticSegmentation",
            "MobileNetV2Config",
            num_labels=CLASSES,
            depth_multiplier=0.35,
        ),
    ),
    Member(
        name="transformers MobileViTV2 DeepLab",
        stride=64,
        size=(128, 192),
        make=partial(
            transformers,
            "MobileViTV2ForSemanticSegmentation",
            "MobileViTV2Config",
            num_labels=CLASSES,
            width_multiplier=0.5,
        ),
    ),
    Member(
        name="transformers DPT",
        size=(96, 96),
        make=partial(
            transformers,
            "DPTForSemanticSegmentation",
            "DPTConfig",
            image_size=96,
            hidden_size=48,
            num_hidden_layers=4,
            num_attention_heads=4,
            intermediate_size=96,
            backbone_out_indices=(0, 1, 2, 3),
            neck_hidden_sizes=(8, 16, 24, 32),
            fusion_hidden_size=16,
            num_labels=CLASSES,
            use_auxiliary_head=False,
        ),
    ),
    Member(
        name="transformers Swin2SR, direct",
        stride=8,
        make=partial(
            transformers,
            "Swin2SRForImageSuperResolution",
            "Swin2SRConfig",
            "reconstruction",
            embed_dim=24,
            upsampler="pixelshuffledirect",
            depths=(2,),
            num_heads=(2,),
            window_size=8,
        ),
    ),
)
"""In the order of the table."""

BY_NAME = {member.name: member for member in ZOO}
