import numpy as np
import pytest

from bench.data.geometry import View, bbox_to_view, crop_matrix, inside, invert, warp_image, warp_points

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


def test_corners_of_the_view_meet_the_corner_pixels_of_the_input() -> None:
    view = View(np.array([50.0, 40.0]), np.array([20.0, 30.0]))
    corners = warp_points(np.array([[40.0, 25.0], [60.0, 55.0]]), crop_matrix(view, INPUT_SIZE))
    np.testing.assert_allclose(corners, [[0, 0], [63, 95]], atol=1e-9)


@pytest.mark.parametrize("view", random_views(8))
def test_unwarping_undoes_warping(view: View) -> None:
    points = np.random.default_rng(1).uniform(-50, 300, (17, 2))
    matrix = crop_matrix(view, INPUT_SIZE)
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
