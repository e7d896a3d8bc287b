"""``pathology train``: train a model from a config."""

from collections.abc import Sequence

HELP = """usage: pathology train --config FILE --out DIR [--SETTING VALUE ...]

Train a model on labelled tiles, or on slides as bags of features. The config holds everything (see
configs/train and docs/training.md); any setting can be overruled by its name. Run again with the
same arguments: a run that was stopped goes on as if it had not been, one that is finished is left
as it is.

the run:
  --config FILE           YAML; given twice, the later overrules the earlier
  --task NAME             tiles (default) or slides; a config says it as `task: slides`
  --out DIR               its folder: settings, versions, curves, checkpoints, figures
  --patience N            stop after N epochs without a better validation score (default: never)
  --checkpoint-minutes N  save so often within an epoch, too (default: 15; 0: not)
  --seed_everything N     seed of weights, order and augmentation (default: 0)
  --trainer.max_epochs N  and every other argument of Lightning's Trainer: devices, strategy,
                          precision, accumulate_grad_batches, logger, ...
both tasks:
  --data.manifest FILE    table of tiles (path,label,split) or of slides (slide_id,path,split)
  --data.classes LIST     class names, e.g. "[normal, tumour]"
  --model.lr X            highest learning rate; --model.optimizer, .schedule, .ema_decay, ...
tiles:
  --model.model NAME      any timm model, or module:name of your own; bcos_* can be explained
  --model.model_args.encoding stain   haematoxylin, eosin, residual in place of colours
  --model.init_from FILE  checkpoint of another run of the same model, or a file of its weights, to
                          start from
  --model.bcosify_epochs N
                          turn a conventional timm model B-cos over N epochs
  --data.tiles DIR        folder that `pathology tile` wrote, when the manifest is one of slides
  --data.dense_halo_px N  dense evaluation: tiles are read with so many pixels around them, and no
                          padding reaches them (docs/dense.md)
  --data.stains DIR       folder that `pathology stain` wrote, to normalise tiles by
  --data.augment NAME     none, turns, turns+colour, turns+stain, full, trivialaugment,
                          randaugment; or strengths (YAML)
slides:
  --model.aggregator NAME   what makes a slide's logits of its tiles (docs/bags.md)
  --data.features DIR       folder that `pathology features` wrote

`pathology train --help-all` lists every setting with its type, `--task slides --help-all` those of
slides (slow: it loads PyTorch)."""


def main(arguments: Sequence[str]) -> int:
    """Run the verb."""
    words = list(arguments)
    if words in (["-h"], ["--help"]):
        print(HELP)
        return 0
    from pathology.cli.lightning_train import train

    return train(["--help" if word == "--help-all" else word for word in words])
