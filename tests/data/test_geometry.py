import numpy as np
import pytest

from bench.data.geometry import (
    FITS,
    View,
    bbox_to_view,
    crop_matrix,
    in_shown,
    inside,
    invert,
    warp_image,
    warp_points,
    warp_view,
)

INPUT_SIZE = (64, 96)


def random_views(num: int) -> list[View]:
    rng = np.random.default_rng(0)
    return [
        View(rng.uniform(0, 200, 2), rng.uniform(20, 300, 2), rng.uniform(-180, 180), bool(rng.integers(2)))
        for _ in range(num)
    ]


def test_a_wide_box_is_heightened_to_the_aspect_of_the_input() -> None:
    view = bbox_to_view(np.array([10.0, 20.0, 60.0, 30.0]), INPUT_SIZE, padding=1.25)
    np.testing.assert_allclose(view.center, [40, 35])
    np.testing.assert_allclose(view.scale, [75, 112.5])


def test_fits_by_hand() -> None:
    """A box of 60 x 30 about (40, 35), a quarter larger: 75 x 37.5; the input is 2 to 3."""
    bbox = np.array([10.0, 20.0, 60.0, 30.0])
    views = {fit: bbox_to_view(bbox, INPUT_SIZE, 1.25, fit) for fit in FITS}
    assert {fit: view.scale.tolist() for fit, view in views.items()} == {
        "extend": [75, 112.5],
        "letterbox": [75, 112.5],
        "stretch": [75, 37.5],
    }
    shown = views["letterbox"].shown
    assert shown is not None
    assert shown.tolist() == [75, 37.5]
    assert views["extend"].shown is views["stretch"].shown is None
    assert all(view.center.tolist() == [40, 35] for view in views.values())


def test_hrnets_geometry_spans_whole_pixels_by_hand() -> None:
    """The box [40, 60] x [25, 55] becomes [0, 64] x [0, 96]: 3.2 input pixels for one, the centre in the middle."""
    view = View(np.array([50.0, 40.0]), np.array([20.0, 30.0]))
    points = np.array([[40.0, 25.0], [60.0, 55.0], [50.0, 40.0], [51.0, 40.0]])
    found = warp_points(points, crop_matrix(view, INPUT_SIZE, aligned=False))
    np.testing.assert_allclose(found, [[0, 0], [64, 96], [32, 48], [35.2, 48]], atol=1e-9)


def test_hrnets_geometry_mirrors_the_image_before_the_crop() -> None:
    """So the crop of a mirrored image (x becomes W - 1 - x) is that of the flipped view."""
    view, width = View(np.array([50.0, 40.0]), np.array([20.0, 30.0]), rotation=20), 160
    points = np.random.default_rng(1).uniform(30, 70, (5, 2))
    mirrored = View(np.array([width - 1 - 50.0, 40.0]), view.scale, rotation=-20)
    wanted = warp_points(points * [-1, 1] + [width - 1, 0], crop_matrix(mirrored, INPUT_SIZE, aligned=False))
    found = warp_points(points, crop_matrix(view._replace(flip=True), INPUT_SIZE, aligned=False))
    np.testing.assert_allclose(found, wanted, atol=1e-9)


def test_corners_of_the_view_meet_the_corner_pixels_of_the_input() -> None:
    view = View(np.array([50.0, 40.0]), np.array([20.0, 30.0]))
    corners = warp_points(np.array([[40.0, 25.0], [60.0, 55.0]]), crop_matrix(view, INPUT_SIZE))
    np.testing.assert_allclose(corners, [[0, 0], [63, 95]], atol=1e-9)


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("view", random_views(8))
def test_unwarping_undoes_warping(view: View, aligned: bool) -> None:
    points = np.random.default_rng(1).uniform(-50, 300, (17, 2))
    matrix = crop_matrix(view, INPUT_SIZE, aligned)
    np.testing.assert_allclose(warp_points(warp_points(points, matrix), invert(matrix)), points, atol=1e-8)


def test_a_flipped_view_mirrors_the_input() -> None:
    view = View(np.array([50.0, 40.0]), np.array([20.0, 30.0]))
    points = np.random.default_rng(1).uniform(30, 70, (5, 2))
    plain = warp_points(points, crop_matrix(view, INPUT_SIZE))
    mirrored = warp_points(points, crop_matrix(view._replace(flip=True), INPUT_SIZE))
    np.testing.assert_allclose(mirrored, np.column_stack([63 - plain[:, 0], plain[:, 1]]), atol=1e-9)


def test_rotation_is_clockwise_by_the_angle() -> None:
    view = View(np.zeros(2), np.array([63.0, 95.0]), rotation=90)
    right_of_centre = warp_points(np.array([[10.0, 0.0]]), crop_matrix(view, INPUT_SIZE))
    np.testing.assert_allclose(right_of_centre, [[31.5, 57.5]], atol=1e-9)  # image y points down


def test_a_bright_pixel_lands_where_its_point_does() -> None:
    image = np.zeros((120, 160, 3), dtype=np.uint8)
    image[70, 90] = 255
    matrix = crop_matrix(View(np.array([85.0, 65.0]), np.array([63.0, 95.0])), INPUT_SIZE)
    crop = warp_image(image, matrix, INPUT_SIZE)
    assert crop.shape == (96, 64, 3)
    row, column = np.unravel_index(crop[..., 0].argmax(), crop.shape[:2])
    np.testing.assert_allclose(warp_points(np.array([[90.0, 70.0]]), matrix)[0], [column, row], atol=0.51)


def test_inside_counts_whole_border_pixels() -> None:
    points = np.array([[-0.4, 0.0], [-0.6, 0.0], [63.4, 95.4], [63.6, 0.0], [np.nan, 0.0]])
    assert inside(points, INPUT_SIZE).tolist() == [True, False, True, False, False]


# Views that do not show all.

WHITE = np.full((120, 160, 3), 255, dtype=np.uint8)


def test_a_letterbox_is_black_around_the_box() -> None:
    """A box of 60 x 30 fills the width of the input and a third of its height."""
    view = bbox_to_view(np.array([50.0, 40.0, 60.0, 30.0]), INPUT_SIZE, 1.0, "letterbox")
    crop = warp_view(WHITE, view, crop_matrix(view, INPUT_SIZE), INPUT_SIZE)
    rows, columns = np.nonzero(crop[..., 0] > 127)
    middle, half = 95 / 2, 30 / 2 * 63 / 60  # in aligned pixels
    assert (columns.min(), columns.max()) == (0, 63)
    assert abs(rows.min() - (middle - half)) <= 1
    assert abs(rows.max() - (middle + half)) <= 1
    assert not crop[: int(middle - half) - 1].any()
    assert not crop[int(middle + half) + 2 :].any()


def test_a_pixel_is_shown_when_its_centre_is() -> None:
    """At a zoom of 1, [75.2, 85.8] x [55.9, 66.1] holds the columns 76 to 85 and the rows 56 to 66."""
    view = View(np.array([80.5, 61.0]), np.array([63.0, 95.0]), shown=np.array([10.6, 10.2]))
    matrix = crop_matrix(view._replace(center=np.array([80.5, 60.5])), INPUT_SIZE)  # whole pixels
    rows, columns = np.nonzero(warp_view(WHITE, view, matrix, INPUT_SIZE)[..., 0])
    assert (columns.min() + 49, columns.max() + 49) == (76, 85)
    assert (rows.min() + 13, rows.max() + 13) == (56, 66)


@pytest.mark.parametrize("view", random_views(8))
def test_what_a_view_shows_is_as_without_bounds(view: View) -> None:
    """Within the shown part, two pixels from its edges, the pixels are the same; beyond them black."""
    image = np.random.default_rng(2).integers(50, 255, (120, 160, 3), dtype=np.uint8)
    view = view._replace(center=np.array([80.0, 60.0]), scale=np.array([60.0, 90.0]), shown=np.array([50.0, 30.0]))
    matrix = crop_matrix(view, INPUT_SIZE)
    bounded, whole = (warp_view(image, v, matrix, INPUT_SIZE) for v in (view, view._replace(shown=None)))
    grid = np.stack(np.meshgrid(np.arange(64.0), np.arange(96.0)), axis=-1).reshape(-1, 2)
    places = warp_points(grid, invert(matrix))
    for margin, wanted in ((-2.0, whole), (2.0, np.zeros_like(whole))):
        assert view.shown is not None
        shown = in_shown(places, view._replace(shown=view.shown + 2 * margin)).reshape(96, 64)
        chosen = shown if margin < 0 else ~shown
        assert chosen.sum() > 100
        difference = np.abs(bounded[chosen].astype(int) - wanted[chosen])
        assert difference.max() <= 16  # OpenCV rounds places to a 32nd of a pixel
        assert difference.mean() < 2


@pytest.mark.parametrize("center", [[-200.0, 60.0], [80.0, -200.0], [500.0, 60.0], [80.0, 500.0]])
def test_a_view_that_shows_nothing_of_the_image_is_black(center: list[float]) -> None:
    view = View(np.array(center), np.array([60.0, 90.0]), shown=np.array([60.0, 40.0]))
    crop = warp_view(WHITE, view, crop_matrix(view, INPUT_SIZE), INPUT_SIZE)
    assert crop.shape == (96, 64, 3)
    assert not crop.any()


def test_without_bounds_every_point_is_shown() -> None:
    view = View(np.array([50.0, 40.0]), np.array([20.0, 30.0]))
    points = np.array([[50.0, 40.0], [60.0, 55.0], [60.1, 40.0], [-1e6, 0.0]])
    assert in_shown(points, view).tolist() == [True] * 4
    assert in_shown(points, view._replace(shown=view.scale)).tolist() == [True, True, False, False]
