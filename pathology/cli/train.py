"""``pathology train``: train a model from a config."""

from collections.abc import Sequence

HELP = """usage: pathology train --config FILE --out DIR [--SETTING VALUE ...]

Train a model on labelled tiles. The config holds everything (see configs/train); any setting can be
overruled by its name. Run again with the same arguments: a run that was interrupted goes on, one
that is finished is left as it is.

options:
  --config FILE           YAML; given twice, the later overrules the earlier
  --task NAME             tiles (default) or slides; a config says it as `task: slides`
  --out DIR               folder of the run: config.yaml, checkpoints/, logs/
  --patience N            stop after N epochs without a better validation AUROC (default: never)
  --seed_everything N     seed of weights, order and augmentation (default: 0)
  --model.model NAME      any timm model; bcos_* ones can be explained
  --model.model_args.encoding stain   haematoxylin, eosin, residual in place of colours
  --model.lr X            highest learning rate
  --data.manifest FILE    tiles.csv (path,label,split), or slides.csv together with --data.tiles
  --data.tiles DIR        folder that `pathology tile` wrote
  --data.stains DIR       folder that `pathology stain` wrote, to normalise tiles by
  --data.augment NAME     none, turns, turns+colour, turns+stain, full, trivialaugment or randaugment;
                          or strengths (YAML)
  --data.classes LIST     class names, e.g. "[normal, tumour]"
  --model.init_from FILE  checkpoint of another run of the same model to start from
  --model.bcosify_epochs N
                          turn a conventional timm model B-cos over N epochs
  --trainer.max_epochs N  and every other argument of Lightning's Trainer

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
