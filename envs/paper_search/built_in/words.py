"""The vocabulary of the built-in field of research: what goes by one name in one era goes by another in the next.

>>> TOPICS[0]
('word tagging', 'sequence labelling', 'token annotation')
>>> method_name(0, 0), method_name(1, 0)
('bayesian kernels', 'recurrent encoders')
"""

from __future__ import annotations

import itertools
from functools import cache

NUM_ERAS = 3

TOPICS: tuple[tuple[str, str, str], ...] = (
    ("word tagging", "sequence labelling", "token annotation"),
    ("phrase translation", "bilingual transfer", "crosslingual generation"),
    ("document digests", "text summarisation", "content condensing"),
    ("question answering", "machine reading", "passage comprehension"),
    ("opinion mining", "sentiment analysis", "stance detection"),
    ("grammar induction", "syntax parsing", "treebank structuring"),
    ("speech recognition", "acoustic transcription", "audio captioning"),
    ("voice conversion", "speaker imitation", "timbre cloning"),
    ("scene classification", "image categorisation", "photo understanding"),
    ("contour finding", "object segmentation", "pixel partitioning"),
    ("stereo depth", "surface reconstruction", "geometry estimation"),
    ("pedestrian tracking", "motion following", "trajectory association"),
    ("handwriting reading", "character extraction", "script decoding"),
    ("robot grasping", "arm manipulation", "gripper control"),
    ("path planning", "mobile navigation", "route finding"),
    ("game playing", "board search", "strategic reasoning"),
    ("item recommendation", "preference prediction", "taste modelling"),
    ("link prediction", "graph completion", "relation discovery"),
    ("outlier detection", "anomaly screening", "novelty spotting"),
    ("demand forecasting", "series extrapolation", "temporal projection"),
    ("protein folding", "residue placement", "molecule shaping"),
    ("drug screening", "compound ranking", "ligand selection"),
    ("tumour grading", "lesion assessment", "pathology staging"),
    ("program repair", "code correction", "bug patching"),
)
"""Each problem's wording in the three eras; two wordings of a problem share no word."""

_FIRST_WORDS = (
    "bayesian spectral latent graphical boosted stochastic hierarchical variational discriminative sparse maximum "
    "probabilistic factored implicit greedy lagrangian semiring smoothed weighted pruned exact marginal cascaded "
    "regularised",
    "recurrent convolutional gated stacked adversarial nested attentive dilated siamese dropout batched recursive "
    "bilinear pooled highway dense capsule echo ternary quantised shuffled curricular tied bottleneck",
    "pretrained prompted contrastive distilled masked instructed frozen multimodal federated equivariant retrieved "
    "aligned autoregressive modular scaled rotary interleaved chained cached reflective merged unlearned grounded "
    "speculative",
)
_NOUNS = (
    "kernels mixtures forests hypergraphs fields automata ensembles hashes wavelets lattices cliques templates "
    "processes samplers votes trees splines dictionaries circuits codebooks priors snakes particles lexicons",
    "encoders networks memories embeddings perceptrons filters timers unrollers pyramids hourglasses critics "
    "registers layers pointers mixers autoencoders cells ladders channels units towers synthesisers blocks maps",
    "transformers adapters agents diffusers experts operators sketches debaters surrogates verifiers tutors "
    "assistants backbones planners probes simulators rewards copilots schedulers hypernetworks judges routers "
    "indexers denoisers",
)
FIRST_WORDS: tuple[tuple[str, ...], ...] = tuple(tuple(words.split()) for words in _FIRST_WORDS)
"""Of the names of methods, by era."""
NOUNS: tuple[tuple[str, ...], ...] = tuple(tuple(words.split()) for words in _NOUNS)
"""The families that methods belong to, by era."""

NUM_NAMES = len(FIRST_WORDS[0]) * len(NOUNS[0])
"""Names of methods in an era."""

_DATA_SETS = (
    "Alderbank/Bromfield Carrow/Dunmere Eastwick/Farnley Garrow/Hexton Ivybridge/Jarvis Kelsey/Lorton Marlow/Norwood "
    "Oakham/Penrith Quorn/Ripley Selby/Thirsk Upton/Ventnor Walden/Yarrow Ashby/Belford Cromer/Dorset Elgin/Fowey "
    "Goole/Hythe Ilkley/Jura Kendal/Ludlow Malvern/Newlyn Orkney/Poole Redcar/Skipton Totnes/Ullswater Whitby/Yeovil "
    "Bodmin/Corby"
)
DATA_SETS: tuple[tuple[str, ...], ...] = tuple(tuple(pair.split("/")) for pair in _DATA_SETS.split())
"""The two data sets of each topic; they keep their names."""

_GIVEN_NAMES = (
    "Amara Bruno Chiara Dmitri Elif Farid Greta Hiro Imani Joon Kavya Luis Mei Nadine Omar Petra Ravi Sofia Tomas Uma "
    "Viktor Wen Yusuf Zofia"
)
GIVEN_NAMES = tuple(_GIVEN_NAMES.split())
_SURNAMES = (
    "Adeyemi Bianchi Chen Dubois Eriksen Fischer Gupta Haddad Ivanov Jensen Kowalski Larsen Moreau Nakamura Okafor "
    "Park Quiroga Rao Schmidt Tanaka Ueda Varga Weiss Yilmaz"
)
SURNAMES = tuple(_SURNAMES.split())


@cache
def word_lists() -> tuple[tuple[str, ...], ...]:
    """The words of names, sorted, by where they stand in them; no word is in two lists.

    Of methods the own words and the families, of problems the first and the second words, and data sets.
    """
    topics = [topic.split() for topics in TOPICS for topic in topics]
    lists = (
        itertools.chain(*FIRST_WORDS),
        itertools.chain(*NOUNS),
        (first for first, _ in topics),
        (second for _, second in topics),
        itertools.chain(*DATA_SETS),
    )
    return tuple(tuple(sorted(set(words))) for words in lists)


def method_name(era: int, number: int) -> str:
    """A method, named by a word of its own and by its family; the number is below `NUM_NAMES`."""
    first, noun = number // len(NOUNS[era]), family(era, number)
    return f"{FIRST_WORDS[era][first]} {NOUNS[era][noun]}"


def family(era: int, number: int) -> int:
    """Which of the era's nouns the method of a number has."""
    return number % len(NOUNS[era])
