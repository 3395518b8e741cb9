"""``exactile run``: segment images."""

from __future__ import annotations

from pathlib import Path

from exactile.cli.failures import reported
from exactile.cli.normalization import NormalizationOptions
from exactile.cli.options import (
    ActivationOption,
    AxesOption,
    BundleOrModelArgument,
    ChannelsOption,
    CorruptChoice,
    CorruptValueOption,
    JointOption,
    LevelOption,
    MeanOption,
    MppOption,
    NoCacheOption,
    NoProgressOption,
    NormalizeOption,
    NoVerifyOption,
    OnCorruptOption,
    OutputNameOption,
    PageOption,
    PercentilesOption,
    ScaleOption,
    SeriesOption,
    StdOption,
    ThresholdOption,
    TOption,
    TrustProbeOption,
    ZOption,
)
from exactile.cli.run_here import run_many, run_one
from exactile.cli.run_options import (
    BackgroundLabelOption,
    BlockOption,
    BorderChoice,
    BorderOption,
    ClusterOption,
    CompressionOption,
    DeviceMemoryOption,
    DeviceOption,
    EngineOption,
    FormatOption,
    ImagesArgument,
    JsonOption,
    KeepOption,
    LabelNameOption,
    LanesOption,
    MemoryOption,
    MixedOption,
    NodataLabelOption,
    NodataOption,
    OutputOption,
    OverlayOption,
    OverwriteOption,
    PlanChoice,
    PlanOption,
    PreviewOption,
    PyramidOption,
    RecursiveOption,
    ResumeOption,
    ScratchOption,
    ScratchSizeOption,
    SkipBackgroundOption,
    StatisticsOption,
    TargetOption,
    ThreadsOption,
    TileOption,
    ToleranceOption,
    TraceOption,
    TrialOption,
    WorkersOption,
)
from exactile.cli.run_request import RunRequest
from exactile.cli.settings_command import ConfigOption, DumpConfigOption, SettingsCommand
from exactile.cli.short_help import HelpAllOption
from exactile.cli.values import parse_channels, parse_lanes, parse_tile
from exactile.contract.tolerance import Tolerance
from exactile.plan.budget import parse_bytes
from exactile.request.model_choice import ModelChoice, why_not_run_before
from exactile.request.onnx_models import when_whole

EXAMPLES = """
**Examples**

`exactile run unet.onnx slide.tif -o labels.tif --scale 255`

`exactile run unet.onnx slide.tif -o labels.ome.tif --memory 2GiB --mean 0.7,0.5,0.6 --std 0.2 --scale 255`

`exactile run unet.bundle slide.tif -o labels.tif`

`exactile run unet.onnx volume.npy -o scores.npy --axes CYX --output raw --tile 512x768`

`exactile run unet.onnx scan.tif -o labels.tif --plan strip --tile 256x8192`

`exactile run unet.bundle slides/ more.svs -o labels/ --format .ome.tif --skip-background 220 --resume`

`exactile run unet.bundle slide.tif -o labels.tif --engine openvino`

`exactile run unet.bundle slide.svs -o labels.tif --device cuda:0 --trace trace.json`

`exactile run unet.onnx slide.svs -o labels.tif --level 1 --channels 0,1,2 --json > summary.json`

`exactile run norms.onnx slides/ -o labels/ --scale 255 --statistics statistics.json`

`exactile run unet.bundle slide.tif -o labels.tif --tolerance labels:1e-5`

`exactile run unet.bundle slide.tif -o labels.zarr --cluster tcp://scheduler:8786 --memory 4GiB --threads 4`

`exactile run unet.bundle slide.tif -o labels.tif --config slides.toml`
"""

PANELS = {
    "Input": "channels axes level mpp series z t page recursive on_corrupt corrupt_value nodata".split(),
    "Model": "output_name threshold activation normalize percentiles joint_channels statistics "
    "no_verify trust_probe no_cache".split(),
    "Plan": "tile border trial tolerance skip_background background_label scratch scratch_size".split(),
    "Output": "suffix compression pyramid label_name nodata_label preview overlay".split(),
    "Device": "engine device_memory threads lanes".split(),
    "Cluster": "cluster workers block mixed".split(),
    "Display": "as_json trace no_progress".split(),
    "Settings": "config dump_config".split(),
}

COMMAND = SettingsCommand


def run(
    model: BundleOrModelArgument,
    images: ImagesArgument,
    target: TargetOption,
    output: OutputOption = None,
    threshold: ThresholdOption = None,
    activation: ActivationOption = None,
    plan: PlanOption = PlanChoice.auto,
    tile: TileOption = None,
    trial: TrialOption = False,
    memory: MemoryOption = None,
    border: BorderOption = BorderChoice.model,
    scale: ScaleOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    normalize: NormalizeOption = None,
    percentiles: PercentilesOption = None,
    joint_channels: JointOption = False,
    channels: ChannelsOption = None,
    axes: AxesOption = None,
    level: LevelOption = 0,
    mpp: MppOption = None,
    series: SeriesOption = 0,
    z: ZOption = None,
    t: TOption = None,
    page: PageOption = None,
    on_corrupt: OnCorruptOption = CorruptChoice.fail,
    corrupt_value: CorruptValueOption = None,
    output_name: OutputNameOption = None,
    skip_background: SkipBackgroundOption = None,
    background_label: BackgroundLabelOption = None,
    nodata: NodataOption = None,
    nodata_label: NodataLabelOption = None,
    tolerance: ToleranceOption = None,
    statistics: StatisticsOption = None,
    preview: PreviewOption = False,
    overlay: OverlayOption = False,
    suffix: FormatOption = ".tif",
    recursive: RecursiveOption = False,
    compression: CompressionOption = None,
    pyramid: PyramidOption = None,
    label_name: LabelNameOption = None,
    resume: ResumeOption = False,
    keep: KeepOption = True,
    device: DeviceOption = "auto",
    engine: EngineOption = "auto",
    device_memory: DeviceMemoryOption = None,
    threads: ThreadsOption = None,
    lanes: LanesOption = "auto",
    cluster: ClusterOption = None,
    workers: WorkersOption = None,
    block: BlockOption = 4096,
    mixed: MixedOption = False,
    scratch: ScratchOption = None,
    scratch_size: ScratchSizeOption = None,
    trace: TraceOption = None,
    overwrite: OverwriteOption = False,
    no_verify: NoVerifyOption = False,
    trust_probe: TrustProbeOption = False,
    no_cache: NoCacheOption = False,
    no_progress: NoProgressOption = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,  # noqa: ARG001  # the command's class takes both
    dump_config: DumpConfigOption = False,  # noqa: ARG001
    help_all: HelpAllOption = False,  # noqa: ARG001
) -> None:
    """Segment images of any size exactly: the result equals one pass over the whole image.

    The output appears under its name only when it is complete. The finished part of an interrupted run is kept beside
    it.
    """
    with reported():
        request = RunRequest(
            model=ModelChoice(
                path=model,
                normalization=NormalizationOptions(
                    normalize=normalize,
                    percentiles=percentiles,
                    joint_channels=joint_channels,
                    scale=scale,
                    mean=mean,
                    std=std,
                ),
                output=output.value if output is not None else None,
                threshold=threshold,
                activation=activation.value if activation is not None else None,
                output_name=output_name,
                strips=plan.value in ("auto", "strip") and skip_background is None,
                whole=when_whole(plan.value, tiles=_in_tiles(tile, skip_background), fixed=statistics is not None),
                unverified=why_not_run_before(plan.value, no_verify=no_verify, fixed=statistics is not None),
                memory_bytes=parse_bytes(memory),
                progress=not no_progress,
                cache=not no_cache,
                trust_probe=trust_probe,
            ),
            sources={
                "axes": axes,
                "channels": parse_channels(channels),
                "level": level,
                "mpp": mpp,
                "series": series,
                "z": z,
                "t": t,
                "page": page,
                "on_corrupt": on_corrupt.value,
                "corrupt_value": corrupt_value,
            },
            sinks={
                "overwrite": overwrite,
                "compression": compression,
                "pyramid": pyramid,
                "resumable": keep or resume,
                "label": label_name,
            },
            plan=plan.value,
            tile=parse_tile(tile),
            trial=trial,
            border=border.value,
            skip_background=skip_background,
            background_label=background_label,
            nodata=nodata,
            nodata_label=nodata_label,
            memory_bytes=parse_bytes(memory),
            threads=threads,
            lanes=parse_lanes(lanes),
            device=device,
            engine=engine,
            device_memory_bytes=parse_bytes(device_memory),
            scratch=scratch,
            scratch_bytes=parse_bytes(scratch_size, "--scratch-size"),
            statistics=statistics,
            tolerance=None if tolerance is None else Tolerance.parse(tolerance),
            trace=trace,
            resume=resume,
            pictures={"preview": preview, "overlay": overlay},
        )
        one = len(images) == 1 and not _is_folder(target) and not _is_folder_of_images(images[0])
        progress = not no_progress
        if cluster is not None:
            from exactile.cli.run_cluster import Cluster, run_many_on_cluster, run_on_cluster  # Dask is imported there

            where = Cluster(address=cluster, workers=workers, block=block, mixed=mixed)
            if one:
                run_on_cluster(request, images[0], target, where, progress=progress, as_json=as_json)
            else:
                run_many_on_cluster(request, images, target, where, suffix=suffix, recursive=recursive,
                                    progress=progress, as_json=as_json)  # fmt: skip
        elif one:
            run_one(request, images[0], target, progress=progress, as_json=as_json)
        else:
            run_many(request, images, target, suffix=suffix, recursive=recursive, overwrite=overwrite,
                     progress=progress, as_json=as_json)  # fmt: skip


def _in_tiles(tile: str | None, skip_background: str | None) -> bool:
    """Return whether an option is given that only tiles have."""
    return tile is not None or skip_background is not None


def _is_folder(target: Path) -> bool:
    """Return whether results go into ``target`` under the names of their images."""
    from exactile.sinks.zarr.sink import zarr_target

    return not zarr_target(target) and (target.is_dir() or not target.suffix)


def _is_folder_of_images(path: str) -> bool:
    from exactile.sources.listing import is_image_folder

    return is_image_folder(path)
