"""Which modes a mode set has with the images at hand, and what the settings of a cell are."""

import pytest
import yaml
from repository import ROOT

from pipelines import params as parameters
from pipelines.mode_sets import resolve


@pytest.fixture
def params():
    return yaml.safe_load((ROOT / "params.yaml").read_text())


def statuses(*available):
    names = ("omniglot", "mini_imagenet", "fc100", "cub", "aircraft", "flowers")
    return {
        name: {"available": True, "digest": f"of {name}"}
        if name in available
        else {"available": False, "message": f"put {name} there"}
        for name in names
    }


def test_the_published_modes_are_taken_where_their_images_are_there(params):
    found = resolve(params, statuses(*statuses()))
    assert list(found["5"]["modes"]) == ["omniglot", "mini_imagenet", "fc100", "cub", "aircraft"]
    assert found["5"]["modes"]["cub"] == "of cub"
    assert not any(mode_set["stand_ins"] or mode_set["left_out"] for mode_set in found.values())


def test_another_dataset_stands_in_and_says_so(params):
    found = resolve(params, statuses("omniglot", "mini_imagenet", "fc100", "cub", "flowers"))
    assert list(found["5"]["modes"])[-1] == "flowers"
    assert found["5"]["stand_ins"] == found["aircraft"]["stand_ins"] == {"aircraft": "flowers"}
    assert found["3"]["stand_ins"] == {}


def test_what_has_no_images_is_left_out_by_name(params):
    found = resolve(params, statuses("omniglot"))
    assert list(found["3"]["modes"]) == ["omniglot"]
    assert found["3"]["left_out"] == ["mini_imagenet", "fc100"]
    assert found["fc100"]["modes"] == {}
    params["classification"]["missing"] = "leave_out"
    found = resolve(params, statuses("omniglot", "flowers"))
    assert found["aircraft"] == {"modes": {}, "stand_ins": {}, "left_out": ["aircraft"]}


def test_a_dataset_does_not_stand_in_beside_itself(params):
    params["classification"]["mode_sets"]["5"] = ["flowers", "aircraft"]
    found = resolve(params, statuses("flowers"))["5"]
    assert list(found["modes"]) == ["flowers"] and found["left_out"] == ["aircraft"]


def test_a_mode_that_must_be_there_is_an_error_that_says_what_to_do(params):
    params["classification"]["missing"] = "error"
    with pytest.raises(parameters.ParameterError, match=r"mode 'mini_imagenet' .* put mini_image"):
        resolve(params, statuses("omniglot"))
    params["classification"]["missing"] = "ignore"
    with pytest.raises(parameters.ParameterError, match=r"classification\.missing is 'ignore'"):
        resolve(params, statuses())


def test_settings_of_a_cell_come_from_method_member_and_protocol(params):
    film = parameters.classification_cell(params, "film-5-20w1s")
    assert (film["method"], film["modulation"], film["ways"]) == ("MMAML", "film", 20)
    assert (film["inner_learning_rate"], film["inner_steps"]) == (0.05, 5)
    omniglot = parameters.classification_cell(params, "single-omniglot-5w5s")
    assert (omniglot["inner_learning_rate"], omniglot["inner_steps"]) == (0.4, 1)
    assert (omniglot["batch"], omniglot["support"]) == (10, 5)
    other = parameters.classification_cell(params, "single-cub-20w1s")
    assert (other["inner_learning_rate"], other["inner_steps"], other["batch"]) == (0.01, 5, 4)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("film-4-5w1s", "'4' is none of classification.mode_sets"),
        ("film-2-3w1s", "'3w1s' is none of classification.protocols"),
        ("folm-2-5w1s", "'folm' is none of classification.methods"),
        ("film", "'' is none of classification.mode_sets"),
    ],
)
def test_unknown_cells_are_refused(params, name, message):
    with pytest.raises(parameters.ParameterError, match=message):
        parameters.classification_cell(params, name)


@pytest.mark.parametrize("scale", parameters.SCALES)
def test_every_scale_is_complete(params, scale):
    assert parameters.classification_scale(params, scale)["image_size"] >= 10
    assert parameters.regression_scale(params, scale)["iterations"] >= 20
    params["scales"][scale]["classification"]["batch"]["5w1s"] = 0
    with pytest.raises(parameters.ParameterError, match=r"batch\.5w1s is 0; expected a positive"):
        parameters.classification_scale(params, scale)


def test_unknown_settings_of_a_method_are_refused(params):
    params["classification"]["methods"]["film"]["inner_step"] = 3
    with pytest.raises(parameters.ParameterError, match=r"unknown settings \['inner_step'\]"):
        parameters.classification_cell(params, "film-2-5w1s")
